"""The folder of a run, made at its start: recipe, DeepSpeed JSON, versions and commit."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import hosts_apart
from ..basics.versions import PACKAGES, commit, package_version
from ..export import public_base
from ..model.load import resolve_dtype
from ..recipe.config import Config
from ..recipe.read import dump, lasting_paths
from ..record.state import wait_until_over


@dataclass(frozen=True)
class RunFolder:
    """``runs/<name>/``."""

    path: Path
    """The folder."""

    @classmethod
    def open(cls, config: Config, recipe: str, world: World, ds: dict[str, Any] | None) -> RunFolder:
        """Makes the folder, or takes the one of the run that is resumed. A collective: rank 0 decides, all agree."""

        def made() -> Path:
            try:
                path = _make(config, recipe)
                _describe(path, config, ds, world)
            except OSError as error:
                raise UserError(
                    f"The run folder cannot be made or written to: {error}. Choose another run.root or run.name."
                ) from None
            return path

        path = world.on_main(made)
        if apart := hosts_apart(path, world):
            raise UserError(
                f"The run folder {path} is not the same folder on all nodes: {', '.join(apart)} cannot see what rank 0 "
                "writes there. Set run.root to storage that all nodes share, under the same path."
            )
        return cls(path)


def _make(config: Config, recipe: str) -> Path:
    name = config.run.name or f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path(config.run.root) / name
    if config.run.resume == "auto" and not config.run.name:
        raise UserError("run.resume=auto needs run.name, the name of the run to continue.")
    if config.run.resume == "none" and path.exists() and any(path.iterdir()):
        raise UserError(
            f"The run folder {path} is not empty. Continue that run with run.resume=auto, or choose another run.name."
        )
    wait_until_over(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _describe(path: Path, config: Config, ds: dict[str, Any] | None, world: World) -> None:
    (path / "recipe.yaml").write_text(dump(lasting_paths(config)), encoding="utf-8")
    (path / "ds_config.json").write_text(json.dumps(ds, indent=2))
    found = {
        "versions": {name: package_version(name) for name in PACKAGES},
        "commit": commit(),
        "ranks": world.size,
        "dtype": str(resolve_dtype(config.model, world.device)).removeprefix("torch."),
        "base": asdict(public_base(config.model.base)),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    (path / "versions.json").write_text(json.dumps(found, indent=1))

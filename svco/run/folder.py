"""The folder of a run, made at its start: recipe, DeepSpeed JSON, versions and commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import CannotWrite, hosts_apart, remove_leftovers, write_whole
from ..basics.secrets import redacted_tree
from ..basics.strict_json import json_text
from ..basics.versions import PACKAGES, commit, package_version
from ..export import public_base
from ..model.load import resolve_dtype
from ..recipe.config import Config
from ..recipe.read import dump, lasting_paths
from ..record.lock import LOCK, FolderLock
from ..record.state import wait_until_over


@dataclass(frozen=True)
class RunFolder:
    """``runs/<name>/``."""

    path: Path
    """The folder."""
    lock: FolderLock | None
    """Held by rank 0: one run writes there."""

    @classmethod
    def open(cls, config: Config, recipe: str, world: World) -> RunFolder:
        """Makes the folder, or takes the one of the run that is resumed, for this run alone; nothing in it is changed yet. A
        collective: rank 0 decides, all agree. UserError where another process works on it."""

        def made() -> Path:
            with _naming_the_folder():
                path = _make(config, recipe)
                lock.append(FolderLock(path))
                wait_until_over(path, lock[0])
            return path

        lock: list[FolderLock] = []
        path = world.on_main(made)
        if apart := hosts_apart(path, world):
            raise UserError(
                f"The run folder {path} is not the same folder on all nodes: {', '.join(apart)} cannot see what rank 0 "
                "writes there. Set run.root to storage that all nodes share, under the same path."
            )
        return cls(path, lock[0] if lock else None)

    def describe(self, config: Config, world: World, ds: dict[str, Any] | None) -> None:
        """Writes what the run is made with: its recipe, its DeepSpeed JSON, versions and commit; what killed processes of it had
        begun to write goes. A collective."""

        def write() -> None:
            with _naming_the_folder():
                for folder in (self.path, self.path / "checkpoints"):
                    remove_leftovers(folder)
                _describe(self.path, config, ds, world)

        world.on_main(write)

    def check_owner(self, world: World) -> None:
        """UserError, on all ranks, when another run has taken the folder: before anything is written there. A collective."""
        world.on_main(lambda: self.lock.check() if self.lock else None)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock:
            self.lock.release()


@contextmanager
def _naming_the_folder() -> Iterator[None]:
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise UserError(
            f"The run folder cannot be made or written to: {error}. Choose another run.root or run.name."
        ) from None


def _make(config: Config, recipe: str) -> Path:
    name = config.run.name or f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path(config.run.root) / name
    if config.run.resume == "auto" and not config.run.name:
        raise UserError("run.resume=auto needs run.name, the name of the run to continue.")
    if config.run.resume == "none" and path.exists() and any(file.name != LOCK for file in path.iterdir()):
        raise UserError(
            f"The run folder {path} is not empty. Continue that run with run.resume=auto, or choose another run.name."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def _describe(path: Path, config: Config, ds: dict[str, Any] | None, world: World) -> None:
    write_whole(path / "recipe.yaml", dump(lasting_paths(config)))
    write_whole(path / "ds_config.json", json_text(redacted_tree(ds), indent=2))
    found = {
        "versions": {name: package_version(name) for name in PACKAGES},
        "commit": commit(),
        "ranks": world.size,
        "dtype": str(resolve_dtype(config.model, world.device)).removeprefix("torch."),
        "base": asdict(public_base(config.model.base)),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    write_whole(path / "versions.json", json_text(found, indent=1))

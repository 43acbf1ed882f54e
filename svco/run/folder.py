"""The folder of a run: recipe, DeepSpeed JSON, versions and commit at its start; weights and pictures at its end."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import BadSample, UserError
from ..basics.files import hosts_apart
from ..basics.versions import PACKAGES, commit, package_version
from ..data.shards import ShardSet
from ..export import public_base, read_facts, replacing, save_model, write_card
from ..model.load import resolve_dtype
from ..model.lora import AdapterForm, stored_name, write_adapter
from ..recipe.config import Config
from ..recipe.read import dump
from ..record.board import Progress
from ..record.state import wait_until_over
from ..scores.pair_scores import PairScores, in_turn, pair_right

if TYPE_CHECKING:
    from ..engine import Engine
    from ..model.load import Tuned


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
    (path / "recipe.yaml").write_text(dump(config), encoding="utf-8")
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


def save_tuned(folder: RunFolder, tuned: Tuned, engine: Engine, config: Config, world: World) -> Path:
    """Writes ``adapter/`` (PEFT format) under LoRA, ``model/`` (Hugging Face layout) otherwise. A collective."""
    trainable = tuned.trainable
    if tuned.wrapped is None:
        target = folder.path / "model"
        # Under ZeRO-3 a partitioned parameter has shape [0]; its true shape is ds_shape.
        shapes = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in trainable.items()}
        progress = Progress.over(world.is_main)
        save_model(target, config.model.base, shapes, engine.gather, tuned.policy.dtype, world, progress)
        return target
    target = folder.path / "adapter"
    values = {stored_name(name): engine.gather(name) for name in trainable}

    def write() -> None:
        form = AdapterForm.of(trainable, config.lora.alpha, config.lora.dropout)
        with replacing(target) as temporary:
            write_adapter(temporary, values, form, public_base(config.model.base).name)

    world.on_main(write)
    return target


def describe_tuned(folder: RunFolder, weights: Path) -> None:
    """The model card in ``weights``, once the run has its held-out figures."""
    facts = read_facts(folder.path, None)
    write_card(weights, "adapter" if weights.name == "adapter" else "full", facts.base, facts, facts.dtype, "5")


def draw_samples(folder: RunFolder, shards: ShardSet, scores: PairScores, count: int) -> Path:
    """``samples.png``: held-out pairs of every contrast type with their six log-probabilities before and after.

    Pairs that training turned come first within a type, then pairs in order: the rule is fixed, the pictures are not
    picked by hand.
    """
    from ..scores.sheet import SheetRow, contact_sheet

    turned = pair_right(scores.policy) & ~pair_right(scores.reference)
    texts = {row: shards.read_text(int(index)) for row, index in enumerate(scores.index)}
    kinds = sorted({text.contrast for text in texts.values()})
    queues = [
        sorted((row for row in texts if texts[row].contrast == kind), key=lambda row: not turned[row]) for kind in kinds
    ]
    chosen = in_turn(queues)[:count]
    rows = []
    for row in chosen:
        try:
            pair = shards.read(int(scores.index[row]))
        except BadSample:
            continue
        rows.append(
            SheetRow(
                key=pair.text.key,
                query=pair.text.query,
                responses=pair.text.responses,
                images=pair.images,
                before=np.asarray(scores.reference[row]),
                after=np.asarray(scores.policy[row]),
                contrast=pair.text.contrast,
            )
        )
    path = folder.path / "samples.png"
    contact_sheet(rows, path, "Held-out pairs, before and after training")
    return path

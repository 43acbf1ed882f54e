"""What is exported: a run, a checkpoint of one, a PEFT adapter folder, or a model folder, opened and not yet read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.progress import Progress
from ..batches.split import cache_dir
from ..engine import read_partitioned
from ..engine.optimizer import STATE_FILE
from ..model.adapter_files import ADAPTER_CONFIG, ADAPTER_FILE, AdapterForm, read_config, read_form, stored_name
from ..model.provenance import BASE_WEIGHTS, DIGESTS, Provenance, unchanged
from ..model.weight_names import PEFT_PREFIX
from ..recipe.config import Config
from ..recipe.read import load_recipe
from ..record.checkpoint import Checkpoints
from ..record.manifest import MANIFEST, best_of, damage, read_identity, read_position
from ..record.state import RunState
from .facts import RunFacts, read_facts
from .stream import Weight, read_file

if TYPE_CHECKING:
    import torch

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Source:
    """Trained values and where they belong."""

    kind: str
    """``lora``, ``full`` (what a run trained) or ``model`` (a whole model folder)."""
    values: dict[str, Weight]
    """Name -> value. LoRA: as peft stores them, without its prefix; full: by transformers 5's names; model: none."""
    form: AdapterForm | None
    """Scale and whole modules of an adapter."""
    base: str
    """Folder or hub id of the base as the run knew it; of a model, its own folder."""
    run: RunFacts | None
    """The run, for the card; None for a folder that no run is known of."""
    label: str
    """What the export folder is named after: empty, or a checkpoint's name."""
    provenance: Provenance | None = None
    """What it was made from, as far as that is known."""
    folder: Path | None = None
    """The adapter's or the model's folder; None of a checkpoint."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype the run computed in; None when no run is known."""
        import torch

        return getattr(torch, self.run.dtype) if self.run else None


def open_source(path: Path, checkpoint: str | None, progress: Progress) -> Source:
    """What ``path`` holds. ``checkpoint`` of a run: ``latest``, ``best``, ``step-N``; None: its final weights, or the newest."""
    path = path.resolve()
    if (path / RECIPE).is_file():
        final = next((path / name for name in ("adapter", "model") if (path / name).is_dir()), None)
        state = RunState.read(path)
        if checkpoint is None and state is not None and state.state == "finished" and final is not None:
            return open_source(final, None, progress)
        return _open_checkpoint(_find_checkpoint(path, checkpoint or "latest", progress))
    if checkpoint is not None:
        raise UserError(f"--checkpoint chooses among the checkpoints of a run, and {path} is no run folder.")
    if (path / MANIFEST).is_file() or re.fullmatch(r"step-\d+", path.name):
        _require_whole(path, progress)
        return _open_checkpoint(path)
    run = path.parent if (path.parent / RECIPE).is_file() else None
    if (path / ADAPTER_CONFIG).is_file():
        return _open_adapter(path, run)
    if (path / "config.json").is_file():
        facts = read_facts(run, None) if run else None
        return Source("model", {}, None, str(path), facts, "", unchanged(path, memory_of(facts)), path)
    raise UserError(
        f"{path} is nothing svco can export: neither a run folder ({RECIPE}), a checkpoint ({MANIFEST}), a PEFT adapter "
        f"({ADAPTER_CONFIG}) nor a model in Hugging Face layout (config.json)."
    )


def _find_checkpoint(run: Path, wanted: str, progress: Progress) -> Path:
    checkpoints = Checkpoints(run / "checkpoints", 0, World())
    if wanted == "latest":
        if (newest := checkpoints.newest(progress)) is None:
            raise UserError(f"The run {run} has no valid checkpoint: it stopped before its first (checkpoint.every).")
        return newest
    if wanted == "best":
        if (best := best_of(checkpoints.folder)) is None:
            raise UserError(
                f"No checkpoint of the run {run} has a score: its recipe sets no checkpoint.keep_best, or it was never validated."
            )
        _require_whole(best[0], progress)
        return best[0]
    number = wanted.removeprefix("step-")
    folder = checkpoints.folder / f"step-{int(number):06d}" if number.isdecimal() else None
    if folder is None or not folder.is_dir():
        there = ", ".join(sorted(p.name for p in checkpoints.folder.glob("step-*") if p.is_dir())) or "none"
        raise UserError(f"The run {run} has no checkpoint {wanted!r}; there: {there}.")
    _require_whole(folder, progress)
    return folder


def _require_whole(folder: Path, progress: Progress) -> None:
    if problem := damage(folder, progress):
        raise UserError(f"The checkpoint {folder} is damaged: {problem}. Export an older one with --checkpoint step-N.")


def _open_checkpoint(folder: Path) -> Source:
    import torch

    run = folder.parent.parent
    if not (run / RECIPE).is_file():
        raise UserError(f"The checkpoint {folder} lies in no run folder ({run / RECIPE} is missing).")
    config = load_recipe(run / RECIPE)
    facts = read_facts(run, read_position(folder))
    values = _read_state(folder)
    identity = read_identity(folder) or {}
    made = "full" if config.model.tune == "full" else "adapter"
    provenance = Provenance(made, facts.base.name, identity.get(BASE_WEIGHTS, ""), identity or None)
    if config.model.tune == "full":
        return Source("full", values, None, config.model.base, facts, folder.name, provenance)
    # The checkpoint's own strength: a run may have been continued with another one, deliberately.
    alpha, dropout = (identity.get(f"lora.{key}", getattr(config.lora, key)) for key in ("alpha", "dropout"))
    form = AdapterForm.of(values, alpha, dropout)
    # As the run used them: the forward pass reads the masters in its own dtype.
    stored = {stored_name(name): value.to(getattr(torch, facts.dtype)) for name, value in values.items()}
    return Source("lora", stored, form, config.model.base, facts, folder.name, provenance)


def _read_state(folder: Path) -> dict[str, Weight]:
    """Float32 masters by parameter name."""
    import torch

    if (folder / STATE_FILE).is_file():
        found = read_file(folder / STATE_FILE).items()
        return {name.removeprefix("value/"): value for name, value in found if name.startswith("value/")}
    if any(folder.glob("swapped-*.safetensors")):
        raise UserError(
            f"The checkpoint {folder} is of a run whose optimizer is on NVMe: it holds each rank's disk as it was, and no "
            "weights by name. Continue the run (run.resume=auto) to its end, which writes the model."
        )
    masters = read_partitioned(folder / "zero")
    return {name: Weight(shape, torch.float32, read) for name, (shape, read) in masters.items()}


def _open_adapter(folder: Path, run: Path | None) -> Source:
    if not (folder / ADAPTER_FILE).is_file():
        raise UserError(f"The adapter {folder} has no {ADAPTER_FILE}.")
    provenance = unchanged(folder)
    stored = {name.removeprefix(PEFT_PREFIX): value for name, value in read_file(folder / ADAPTER_FILE).items()}
    if run is not None:
        base = load_recipe(run / RECIPE).model.base  # the adapter itself gives the base's public name
    else:
        base = read_config(folder).get("base_model_name_or_path") or ""
    form = read_form(folder)
    return Source("lora", stored, form, base, read_facts(run, None) if run else None, "", provenance, folder)


def memory_of(facts: RunFacts | None) -> Path:
    """Where digests of files are remembered."""
    return cache_dir(facts.config if facts else Config()) / DIGESTS

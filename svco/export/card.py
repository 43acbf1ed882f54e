"""The model card: what was trained, on what, how, with which effect, and code that loads it. No path of this machine."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from ..basics.files import write_whole
from ..basics.markdown import markdown
from ..objectives.table import OBJECTIVES
from ..recipe.config import Config
from ..recipe.read import load_recipe
from ..record.manifest import MANIFEST, Position, finished, read_position
from ..scores.before_after import table

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_SECTIONS = {
    "model": ("tune", "train_projector", "reference"),
    "lora": ("rank", "alpha", "dropout", "targets"),
    "objective": None,
    "optim": ("lr", "lr_min_ratio", "warmup_fraction", "betas", "eps", "weight_decay", "max_grad_norm", "global_batch"),
    "data": ("max_text_tokens",),
    "run": ("seed",),
}
"""What of a recipe a card tells; None: all. Nothing that holds a path."""


@dataclass(frozen=True)
class Base:
    """A base model as others know it."""

    name: str
    """Its hub id, or the name it is called by."""
    on_hub: bool
    """``name`` is a hub id."""


def public_base(base: str, given: str | None = None) -> Base:
    """The name under which ``base``, a folder or hub id, may be published; ``given`` is the user's own word for it."""
    if given is not None:
        if not _HUB_ID.fullmatch(given):
            raise UserError(f"--base-name is {given!r}; it takes a hub id (organisation/name) or a plain name.")
        return Base(given, "/" in given)
    # The hub's cache: .../models--organisation--name/snapshots/<commit>
    for part in Path(base).parts:
        if part.startswith("models--"):
            return Base(part.removeprefix("models--").replace("--", "/"), True)
    if Path(base).is_absolute() or Path(base).exists() or not _HUB_ID.fullmatch(base):
        return Base(Path(base).resolve().name, False)
    return Base(base, True)


@dataclass(frozen=True)
class RunFacts:
    """What a run's folder says about it."""

    name: str
    """The run's name."""
    config: Config
    """Its recipe."""
    dtype: str
    """The dtype it computed in."""
    base: Base
    """Its base model."""
    about: Mapping[str, Any]
    """``versions.json``."""
    position: Position | None
    """How far the exported weights were trained; None when no checkpoint is left to say so."""
    heldout: Mapping[str, Any] | None
    """``heldout.json``, of weights trained to the run's end."""


def read_facts(run: Path, position: Position | None) -> RunFacts:
    """The facts of run folder ``run``, whose weights at ``position`` (None: at its end) are exported."""
    if position is None and (kept := finished(run / "checkpoints")) and (kept[-1] / MANIFEST).is_file():
        position = read_position(kept[-1])
    config = load_recipe(run / "recipe.yaml")
    about = _read_json(run / "versions.json") or {}
    if "dtype" not in about or "base" not in about:
        raise UserError(f"{run / 'versions.json'} does not say which dtype and base the run had: no svco run wrote it.")
    at_end = position is None or position.step == position.steps
    heldout = _read_json(run / "heldout.json") if at_end else None
    return RunFacts(run.name, config, about["dtype"], Base(**about["base"]), about, position, heldout)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}).") from None


def write_card(folder: Path, kind: str, base: Base, run: RunFacts | None, dtype: str, names: str) -> None:
    """Writes ``README.md`` into an exported folder. ``kind``: ``adapter``, ``merged`` or ``full``."""
    parts = [
        _front_matter(kind, base),
        f"# {run.name if run else base.name} ({_TITLES[kind]})",
        _what(kind, base, run),
        _how_to_load(kind, base, dtype, names),
        *([_training(run), _effect(run), _made_with(run)] if run else []),
        "## Licence\n\nThese weights are derived from the base model: the base model's licence and terms of use apply to "
        "them.",
    ]
    write_whole(folder / "README.md", "\n\n".join(filter(None, parts)) + "\n")


_TITLES = {"adapter": "LoRA adapter", "merged": "LoRA merged into its base", "full": "Whole model"}


def _front_matter(kind: str, base: Base) -> str:
    lines = ["library_name: " + ("peft" if kind == "adapter" else "transformers"), "pipeline_tag: image-text-to-text"]
    if base.on_hub:
        relation = "adapter" if kind == "adapter" else "finetune"
        lines += [f"base_model: {base.name}", f"base_model_relation: {relation}"]
    return "\n".join(["---", *lines, "tags: [svco]", "---"])


def _what(kind: str, base: Base, run: RunFacts | None) -> str:
    known = f"`{base.name}`" if base.on_hub else f"`{base.name}` (a folder of its trainers, not a hub id)"
    if run is None:
        return f"{_TITLES[kind]}; base model: {known}. Converted by `svco export`; no run is known of it."
    config = run.config
    # An objective registered by somebody's own launcher is not in the table here.
    entry = OBJECTIVES.get(config.objective.name)
    objective = entry.title if entry else config.objective.name
    tuned = {
        "lora": "LoRA on the language model" + (", the projector in full" if config.model.train_projector else ""),
        "full": "projector and language model in full",
    }[config.model.tune]
    aim = ": an answer becomes likelier with its own image than with none, and less likely with the contradicting one"
    return (
        f"{_TITLES[kind]} of a vision-language model, fine-tuned with {objective}"
        f"{aim if config.objective.name == 'svco' else ''}.\n\nBase model: {known}. Trained: {tuned}; the vision tower is "
        "the base's."
    )


def _how_to_load(kind: str, base: Base, dtype: str, names: str) -> str:
    lines = ["from transformers import AutoModelForImageTextToText, AutoProcessor", ""]
    if kind == "adapter":
        where = "" if base.on_hub else "  # where you have it"
        lines = [
            "from peft import PeftModel",
            *lines,
            f'base, adapter = "{base.name}", "."{where}',
            "processor = AutoProcessor.from_pretrained(base)",
            f'model = AutoModelForImageTextToText.from_pretrained(base, dtype="{dtype}")',
            "model = PeftModel.from_pretrained(model, adapter)",
        ]
    else:
        lines += [
            'processor = AutoProcessor.from_pretrained(".")',
            f'model = AutoModelForImageTextToText.from_pretrained(".", dtype="{dtype}")',
        ]
    needs = {
        ("adapter", "4"): "The weights have the names of transformers before 4.52. ",
        ("adapter", "5"): "The weights have the names of transformers 5. ",
    }.get((kind, names), "")
    return f"## Loading\n\n{needs}`.` is this folder.\n\n```python\n" + "\n".join(lines) + "\n```"


def _training(run: RunFacts) -> str:
    rows = []
    for section, keys in _SECTIONS.items():
        if section == "lora" and run.config.model.tune != "lora":
            continue
        part = dataclasses.asdict(getattr(run.config, section))
        rows += [[f"`{section}.{key}`", _plain(part[key])] for key in keys or part]
    lines = ["## Training", "", markdown([["hyper-parameter", "value"], *rows], texts=2)]
    if at := run.position:
        end = "" if at.step == at.steps else " (the run had not ended)"
        seen = f"Step {at.step} of {at.steps}{end}: {at.pairs} pairs seen in {at.step} steps of {at.global_batch}."
        lines += ["", f"{seen} Digest of the training shards: `{at.data}`."]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _effect(run: RunFacts) -> str:
    if not run.heldout:
        return ""
    return f"## Effect\n\n```\n{table(run.heldout, 'held-out pairs, before and after training')}\n```"


def _made_with(run: RunFacts) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run.about["versions"].items() if number)
    commit = f"; svco's commit {run.about['commit']}" if run.about.get("commit") else ""
    return f"## Made with\n\n{versions}{commit}; {run.about['ranks']} ranks, {run.dtype}."

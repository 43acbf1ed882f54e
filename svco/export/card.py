"""The model card: what was trained, on what, how, with which effect, and code that loads it. No path of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..basics.files import write_whole
from ..basics.markdown import markdown
from ..objectives.table import OBJECTIVES
from ..scores.before_after import table
from .facts import Base, RunFacts
from .results import Result, evaluation, trained_results
from .serving import how_to_serve

_SECTIONS = {
    "model": ("tune", "quantise", "train_projector", "reference"),
    "lora": ("rank", "alpha", "dropout", "targets"),
    "objective": None,
    "optim": ("lr", "lr_min_ratio", "warmup_fraction", "betas", "eps", "weight_decay", "max_grad_norm", "global_batch"),
    "data": ("max_text_tokens",),
    "run": ("seed",),
}
"""What of a recipe a card tells; None: all. Nothing that holds a path."""


def write_card(
    folder: Path,
    kind: str,
    base: Base,
    run: RunFacts | None,
    dtype: str,
    names: str,
    evaluated: Sequence[Result] = (),
) -> None:
    """Writes ``README.md`` into an exported folder, whose weights are there. ``kind``: ``adapter``, ``merged`` or ``full``."""
    results = [*trained_results(run), *evaluated]
    title = run.name if run else base.name
    parts = [
        _front_matter(kind, base, title, results),
        f"# {title} ({_TITLES[kind]})",
        _what(kind, base, run),
        _how_to_load(kind, base, dtype, names),
        how_to_serve(kind, base, folder),
        *([_training(run), _effect(run)] if run else []),
        evaluation(evaluated),
        *([_made_with(run)] if run else []),
        "## Licence\n\nThese weights are derived from the base model: the base model's licence and terms of use apply to "
        "them.",
    ]
    write_whole(folder / "README.md", "\n\n".join(filter(None, parts)) + "\n")


_TITLES = {"adapter": "LoRA adapter", "merged": "LoRA merged into its base", "full": "Whole model"}


def _front_matter(kind: str, base: Base, title: str, results: Sequence[Result]) -> str:
    """What the hub reads of a card, its model index of the ``results`` included."""
    from huggingface_hub import ModelCardData

    known: dict[str, Any] = {}
    if base.on_hub:
        known = {"base_model": base.name, "base_model_relation": "adapter" if kind == "adapter" else "finetune"}
    data = ModelCardData(
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["svco"],
        model_name=title,
        eval_results=[result.of_the_hub() for result in results] or None,
        **known,
    )
    return f"---\n{data.to_yaml()}\n---"


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
        f"the base's.{_in_4_bits(kind, config.model.quantise)}"
    )


def _in_4_bits(kind: str, quantise: str) -> str:
    """What there is to know of weights that were learned beside a quantised base."""
    if quantise == "none":
        return ""
    now = {
        "adapter": "On the base in full, as the code below loads it, it gives other figures, by what quantising changes in "
        "the base.",
        "merged": "It is merged into the base in full, so these weights are not quite what was trained and give other figures, "
        "by what quantising changes in the base.",
    }[kind]
    return (
        f"\n\nThe adapter was trained beside the base in 4 bits ({quantise}), and the run's figures of held-out pairs are of "
        f"that. {now} `svco eval --quantise` says how far apart they are."
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
    videos = (
        "The processors of newer families, which know videos, need the package torchvision, SmolVLM's num2words too. "
    )
    return f"## Loading\n\n{needs}{videos}`.` is this folder.\n\n```python\n" + "\n".join(lines) + "\n```"


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

"""Figures for the model card: the run's own held-out pairs, and evaluations of these very weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError
from ..basics.markdown import markdown
from ..model.provenance import folder_digest
from ..scores.measures import NAMES
from .facts import RunFacts
from .source import Source, memory_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

RESULT = "eval.json"
_OF_PAIRS = ("pair_accuracy", "image_accuracy", "group_accuracy")


@dataclass(frozen=True)
class Result:
    """One figure."""

    on: str
    """What it was measured on."""
    size: int
    """Pairs or questions."""
    measure: str
    """What was measured."""
    title: str
    """The same in words, with its rule."""
    value: float
    """The figure, as eval.json has it."""
    error: float | None
    """Standard error."""

    def of_the_hub(self) -> EvalResult:
        """As a card's model index has it."""
        from huggingface_hub import EvalResult

        return EvalResult(
            task_type="image-text-to-text",
            dataset_type=self.on,
            dataset_name=f"{self.on} (n = {self.size})",
            metric_type=self.measure,
            metric_name=self.title,
            metric_value=round(self.value, 5),
        )


def trained_results(run: RunFacts | None) -> list[Result]:
    """Of the pairs that the run held out; empty where it scored none."""
    told = run.heldout if run else None
    if not run or not told or not told["pairs"]:
        return []
    share, size = told["after"]["pair_accuracy"], told["pairs"]
    error = (share * (1 - share) / size) ** 0.5
    title = NAMES["pair_accuracy"] + _held(run.config.model.quantise)
    return [Result(f"held-out pairs of {run.name}", size, "pair_accuracy", title, share, error)]


def _held(quantise: str | None) -> str:
    """What a figure's title says of a base that was not in full."""
    return f", base in {quantise}" if quantise and quantise != "none" else ""


def read_results(folder: Path, source: Source, name: Path) -> list[Result]:
    """The figures of the evaluation in ``folder``, an ``--out`` of ``svco eval``. UserError unless it is whole, and one of the
    weights of ``source`` (called ``name``) on the base that they were trained on."""
    try:
        told = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        model, sets, benchmarks = told["model"], told["sets"], told["benchmarks"]
        weights = model.get("weights")
        held = _held(weights.get("quantise") if weights else None)
        results = [replace(each, title=each.title + held) for each in (*_sets(sets), *_benchmarks(benchmarks))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--eval {folder} is no finished evaluation ({error}). Give the --out of svco eval.") from None
    if weights is None:
        raise UserError(f"--eval {folder} does not say which weights it was made with: evaluate once more.")
    _require_same(folder, weights, source, name)
    return results


def _require_same(folder: Path, weights: Mapping[str, Any], source: Source, name: Path) -> None:
    if source.folder is None:
        raise UserError(
            f"--eval goes with weights that were evaluated, and {name} is a checkpoint: export it, evaluate the export, and "
            "export that with --eval."
        )
    mine, kind = folder_digest(source.folder, memory_of(source.run)), "adapter" if source.kind == "lora" else "base"
    other_base = (
        source.kind == "lora" and source.provenance and source.provenance.base_weights not in ("", weights["base"])
    )
    of_others = source.kind != "lora" and (weights["adapter"] or weights.get("quantise"))
    if weights[kind] != mine or of_others or other_base:
        raise UserError(
            f"The evaluation {folder} is of other weights than {name}: a card tells only of what it comes with. Evaluate "
            f"{source.folder}."
        )


def _sets(sets: Mapping[str, Any]) -> list[Result]:
    return [
        Result(name, part["pairs"], measure, NAMES[measure], part[measure]["value"], part[measure]["se"])
        for name, part in sets.items()
        for measure in _OF_PAIRS
        if measure in part and part[measure]["value"] is not None
    ]


def _benchmarks(benchmarks: Mapping[str, Any]) -> list[Result]:
    found = []
    for name, part in benchmarks.items():
        if part.get("score") is None:
            continue
        # The estimate whose value the score is: benchmarks call theirs differently.
        error = next(
            (e["se"] for e in part.values() if isinstance(e, dict) and e.get("value") == part["score"] and "se" in e),
            None,
        )
        rule = f"score; {part['rule']}" if part.get("rule") else "score"
        found.append(Result(name, part.get("questions", 0), "score", rule, part["score"], error))
    return found


def evaluation(results: Sequence[Result]) -> str:
    """The section of the card; empty without results."""
    if not results:
        return ""
    rows = [["on", "n", "", "value", "standard error"]]
    for each in results:
        error = "" if each.error is None else f"{each.error:.4f}"
        rows.append([each.on, str(each.size), each.title, f"{each.value:.4f}", error])
    return "## Evaluation\n\nBy `svco eval`, of these weights.\n\n" + markdown(rows)

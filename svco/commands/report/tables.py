"""Figures with their errors: held-out pairs before and after, runs against each other, and evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.errors import UserError, first_line
from ...basics.secrets import redacted_tree
from ...scores.kept import KeptScores
from ...scores.measures import NAMES, SHARES, scored
from ...scores.statistics import Comparison, Estimate, Measure, compare, estimate
from .runs import Run

RESULT = "eval.json"
"""What ``svco eval`` writes."""
NOTE = (
    "± is a standard error and brackets a 95% interval, over pairs (the two sides of a pair are taken together). Changes and "
    "differences are paired; p is two-sided: McNemar's exact test for shares of pairs, else random exchanges within pairs. "
    "Nothing is corrected for the number of rows."
)


@dataclass(frozen=True)
class Table:
    """A table of figures."""

    title: str
    """What it is of."""
    head: tuple[str, ...]
    """Names of its columns."""
    rows: tuple[tuple[str, ...], ...]
    """Its rows, the first cell their name."""


def before_after(run: Run) -> list[Table]:
    """The held-out pairs of a run: overall, and pair accuracy by contrast type; nothing of one that kept no scores."""
    kept = run.scores
    if kept is None or not len(kept.index):
        return []
    measures = [scored(logps, kept.tokens) for logps in (kept.before, kept.after)]
    head = ("", "before", "after", "change", "p")
    overall = Table(f"{run.name}: {len(kept.index):,} held-out pairs", head, _changes(*measures))
    kinds = {}
    for kind in sorted(set(kept.contrast.tolist())):
        rows = np.flatnonzero(kept.contrast == kind)
        name = f"{kind} ({len(rows):,})"
        kinds[name] = [{"pair_accuracy": part["pair_accuracy"][rows]} for part in measures]
    parts = tuple((name, *row[1:]) for name, (before, after) in kinds.items() for row in _changes(before, after))
    by_kind = Table(f"{run.name}: pair accuracy by contrast type (pairs)", head, parts)
    return [overall, by_kind] if len(kinds) > 1 else [overall]


def _changes(before: Mapping[str, Measure], after: Mapping[str, Measure]) -> tuple[tuple[str, ...], ...]:
    compared = compare(after, before)
    return tuple(
        (
            NAMES.get(name, name),
            cell(name, estimate(before[name])),
            cell(name, estimate(after[name])),
            cell(name, compared[name].difference, signed=True),
            p_value(compared[name]),
        )
        for name in sorted(compared, key=_place)
    )


def _place(name: str) -> int:
    return list(NAMES).index(name) if name in NAMES else len(NAMES)


def against_first(runs: Sequence[Run]) -> list[Table]:
    """Every other run's trained weights against those of the first that kept scores, on the held-out pairs they share by key."""
    kept = [(run.name, run.scores) for run in runs if run.scores is not None and len(run.scores.index)]
    tables = []
    for name, other in kept[1:]:
        first_name, first = kept[0]
        mine, theirs = _shared(other, first)
        if not len(mine) or other.after.shape[2] != first.after.shape[2]:
            continue
        measures = [scored(k.after[rows], k.tokens[rows]) for k, rows in ((other, mine), (first, theirs))]
        compared = compare(measures[0], measures[1])
        rows = tuple(
            (
                NAMES.get(measure, measure),
                cell(measure, estimate(measures[1][measure])),
                cell(measure, estimate(measures[0][measure])),
                cell(measure, compared[measure].difference, signed=True),
                p_value(compared[measure]),
            )
            for measure in sorted(compared, key=_place)
        )
        title = f"{name} minus {first_name}, after training: {len(mine):,} pairs that both scored"
        tables.append(Table(title, ("", first_name, name, "difference", "p"), rows))
    return tables


def _shared(one: KeptScores, other: KeptScores) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that are of the same keys, in the same order."""
    _, mine, theirs = np.intersect1d(one.key, other.key, return_indices=True)
    return mine, theirs


def evaluations(runs: Sequence[Run], named: Sequence[Path]) -> tuple[list[Table], list[str]]:
    """(tables of every evaluation in the runs' folders and of those ``named``, what could not be read). UserError for a folder
    that was named and holds none."""
    tables, problems = [], []
    inside = [path for run in runs for path in sorted([*run.folder.glob(RESULT), *run.folder.glob(f"*/{RESULT}")])]
    for folder in named:
        if not (folder / RESULT).is_file():
            raise UserError(f"--evaluations {folder}: it has no {RESULT}. Name what was given to svco eval as --out.")
        inside.append(folder / RESULT)
    for path in dict.fromkeys(path.resolve() for path in inside):
        try:
            found = redacted_tree(json.loads(path.read_text(encoding="utf-8")))
            tables += _evaluation(found, path.parent.name)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            problems.append(f"{path.parent.name}/{RESULT} cannot be read ({first_line(error)}).")
    return tables, problems


def _evaluation(found: Mapping[str, Any], folder: str) -> list[Table]:
    """Whatever in it is a figure with an error: sets beside each other, then benchmarks."""
    model = found["model"].get("name") or folder
    tables = []
    for part, what in (("sets", "pairs"), ("benchmarks", "benchmarks")):
        sets = {str(name): _estimates(values) for name, values in found.get(part, {}).items()}
        names = sorted(dict.fromkeys(name for values in sets.values() for name in values), key=_place)
        rows = tuple(
            (NAMES.get(n, n.replace("_", " ")), *(cell(n, v[n]) if n in v else "" for v in sets.values()))
            for n in names
        )
        if rows:
            tables.append(Table(f"{model} ({folder}): {what}", ("", *sets), rows))
    return tables


def _estimates(values: Any) -> dict[str, Estimate]:
    found = {}
    for name, part in values.items() if isinstance(values, Mapping) else ():
        if isinstance(part, Mapping) and {"value", "se", "low", "high"} <= part.keys():
            numbers = [
                part[key] if isinstance(part[key], (int, float)) else math.nan for key in Estimate.__annotations__
            ]
            found[str(name)] = Estimate(*map(float, numbers))
    return found


def cell(measure: str, found: Estimate, signed: bool = False) -> str:
    """``value ± s.e. [low, high]``; shares in percent, their differences in points."""
    share = measure in SHARES or measure.endswith("accuracy")
    plus = "+" if signed else ""

    def text(value: float, plus: str = "") -> str:
        return (f"{100 * value:{plus}.1f}" if share else f"{value:{plus}.3f}").replace("-", "−")

    if not math.isfinite(found.value):
        return "not finite"
    unit = (" points" if signed else "%") if share else ""
    if not math.isfinite(found.se):
        return text(found.value, plus) + unit
    return f"{text(found.value, plus)}{unit} ± {text(found.se)} [{text(found.low)}, {text(found.high)}]"


def p_value(found: Comparison) -> str:
    return f"{found.p:.3f}" if found.p >= 0.001 else f"{found.p:.1e}".replace("-", "−")

"""What a page says of its runs in tables: how they are, what they were asked for, where the time went, what went wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...basics.errors import UserError
from ...recipe.config import Config
from ...recipe.read import to_tree
from ...scores.before_after import table
from .charts import number
from .runs import Run, as_text

MOST_NAMED = 20
"""Skipped steps of a run, and pairs of a step, that are listed."""


@dataclass(frozen=True)
class Row:
    """One line of a table that has a column a run."""

    name: str
    """What it tells."""
    cells: tuple[str, ...]
    """A cell a run."""
    differs: bool = False
    """The runs differ in it."""
    unusual: tuple[bool, ...] = ()
    """Of a recipe: which cells are not the default."""


def summary(runs: Sequence[Run]) -> list[Row]:
    """How the runs are, a line a fact that some run tells."""
    facts: dict[str, Callable[[Run], str]] = {
        "state": _state,
        "steps": _steps,
        "pairs seen": lambda run: _last(run, "pairs"),
        "loss, last": lambda run: _last(run, "loss"),
        "pair accuracy, held-out": _accuracy,
        "base": lambda run: _said(run.made_with.get("base"), "name") or run.recipe.get("model.base", ""),
        "precision": lambda run: _said(run.made_with, "dtype"),
        "ranks": lambda run: _said(run.made_with, "ranks"),
        "begun": lambda run: _said(run.made_with, "started").replace("T", " "),
        "last sign": _last_sign,
        "time of all steps": lambda run: span(sum(_values(run, "seconds/lap"))),
        "pairs a second, median": lambda run: _median(run, "pairs_per_second"),
        "memory at the peak": _memory,
        "skipped steps": lambda run: _last(run, "skipped"),
        "bad pairs": _bad,
        "checkpoints": lambda run: run.checkpoints,
        "made with": _versions,
    }
    rows = [Row(name, tuple(tell(run) for run in runs)) for name, tell in facts.items()]
    return [row for row in rows if any(row.cells)]


def _said(tree: Any, name: str) -> str:
    value = tree.get(name) if isinstance(tree, Mapping) else None
    return "" if value is None else str(value)


def _state(run: Run) -> str:
    if run.state is None:
        return "not known"
    if run.goes_on:
        return f"running, {run.state.doing}" + (f", to stop ({run.state.reason})" if run.state.reason else "")
    return run.verdict + (f": {run.state.reason}" if run.state.reason else "")


def _steps(run: Run) -> str:
    done = run.lines[-1]["step"] if run.lines else 0
    if run.state is None or not run.state.steps:
        return f"{done:,.0f}" if run.lines else "none yet"
    return f"{run.state.step:,} of {run.state.steps:,}"


def _last_sign(run: Run) -> str:
    try:
        return f"{datetime.fromtimestamp(run.state.beat, UTC):%Y-%m-%d %H:%M:%S} UTC" if run.state else ""
    except (OverflowError, OSError, ValueError):
        return ""


def _values(run: Run, name: str) -> list[float]:
    return [line[name] for line in run.lines if math.isfinite(line.get(name, math.nan))]


def _last(run: Run, name: str) -> str:
    values = [line[name] for line in run.lines if name in line]
    if not values:
        return ""
    return f"{values[-1]:,.0f}" if name in ("pairs", "skipped") and math.isfinite(values[-1]) else number(values[-1])


def _median(run: Run, name: str) -> str:
    values = _values(run, name)
    return number(statistics.median(values)) if values else ""


def _memory(run: Run) -> str:
    values = _values(run, "memory_peak_bytes")
    return f"{max(values) / 1e9:.2f} GB" if values else ""


def _bad(run: Run) -> str:
    counts = {name.removeprefix("bad/"): v for line in run.lines for name, v in line.items() if name.startswith("bad/")}
    told = ", ".join(f"{value:,.0f} {reason}" for reason, value in counts.items() if math.isfinite(value))
    return told or ("none" if run.lines else "")


def _accuracy(run: Run) -> str:
    before, after = (_number(run.heldout.get(when), "pair_accuracy") for when in ("before", "after"))
    return "" if after is None or before is None else f"{before:.1%} before, {after:.1%} after"


def _number(tree: Any, name: str) -> float | None:
    value = tree.get(name) if isinstance(tree, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e9 else None


def _versions(run: Run) -> str:
    versions = run.made_with.get("versions")
    shown = ("svco", "torch", "transformers", "deepspeed")
    told = [f"{name} {versions[name]}" for name in shown if versions.get(name)] if isinstance(versions, Mapping) else []
    commit = run.made_with.get("commit")
    return ", ".join(told + ([f"commit {str(commit)[:12]}"] if commit else []))


def span(seconds: float) -> str:
    """Seconds in words; empty for none."""
    if not 0 < seconds < 1e10:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def recipe(runs: Sequence[Run]) -> list[Row]:
    """Every key of the runs' recipes, those first in which they differ, then those that are not the default."""
    usual = {f"{section}.{key}": as_text(v) for section, part in to_tree(Config()).items() for key, v in part.items()}
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.recipe):
        if key == "run.name":  # the heads of the columns say it
            continue
        cells = tuple(run.recipe.get(key, "" if not run.recipe else "not in its recipe") for run in runs)
        told = {run.recipe.get(key) for run in runs if run.recipe}
        rows.append(Row(key, cells, len(told) > 1, tuple(cell != usual.get(key) for cell in cells)))
    return sorted(rows, key=lambda row: (not row.differs, not any(row.unusual)))


def time_spent(runs: Sequence[Run]) -> list[Row]:
    """Seconds and share of each part of the steps, on rank 0; the rest is validation, saving and logging."""
    sums = [
        {name.removeprefix("seconds/"): sum(_values(run, name)) for name in _parts(run)} | {"whole": _whole(run)}
        for run in runs
    ]
    names = dict.fromkeys(name for part in sums for name in part if name != "whole")
    rows = [(name, tuple(_share(part.get(name, 0.0), part["whole"]) for part in sums)) for name in names]
    rest = tuple(_share(2 * part["whole"] - sum(part.values()), part["whole"]) for part in sums)
    whole = tuple(span(part["whole"]) for part in sums)
    found = [*rows, ("the rest: validation, saving, logging", rest), ("whole", whole)] if names else []
    return [Row(name, cells) for name, cells in found]


def _parts(run: Run) -> list[str]:
    names = dict.fromkeys(name for line in run.lines for name in line)
    return [name for name in names if name.startswith("seconds/") and name != "seconds/lap"]


def _whole(run: Run) -> float:
    return math.fsum(_values(run, "seconds/lap"))


def _share(seconds: float, whole: float) -> str:
    seconds = max(0.0, seconds)
    return f"{span(seconds) or '0 s'} ({seconds / whole:.1%})" if whole else ""


def skipped(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """(run, step, pairs with what was not finite of them) of the steps that were skipped, the first ones of each run."""
    rows = []
    for run in runs:
        for line in run.bad_steps[:MOST_NAMED]:
            pairs = line.get("pairs")
            named = [_suspect(pair) for pair in pairs[:MOST_NAMED]] if isinstance(pairs, list) else []
            rows.append((run.name, f"{line['step']:,}", "; ".join(named) or "none of its pairs: the gradients alone"))
        if len(run.bad_steps) > MOST_NAMED:
            rows.append((run.name, "…", f"{len(run.bad_steps) - MOST_NAMED:,} more in bad_steps.jsonl"))
    return rows


def _suspect(pair: Any) -> str:
    terms = pair.get("terms") if isinstance(pair, Mapping) else None
    told = ", ".join(f"{name} {value}" for name, value in terms.items()) if isinstance(terms, Mapping) else ""
    return f"{_said(pair, 'key') or 'a pair without a key'} ({told})"


def heldout_text(run: Run) -> str:
    """The table of ``heldout.json`` of a run that kept no scores of its pairs; empty where there is none, or it is no table."""
    try:
        return table(run.heldout, "held-out pairs, before and after training") if run.heldout else ""
    except (KeyError, TypeError, ValueError, AttributeError, UserError, ZeroDivisionError):
        run.problems.append("heldout.json holds something else than svco writes.")
        return ""

"""From evaluations to the rows of the table: figures with errors, paired differences, TOTAL, and what is not there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...scores.statistics import Measure, Z, compare, estimate, standard_error
from ..evaluation import RESULT
from ..evaluation.against import Evaluation, same_judge
from ..evaluation.benchmarks.protocol import Lines
from ..evaluation.benchmarks.table import BENCHMARKS
from .columns import COLUMNS, Column, total


@dataclass(frozen=True)
class Evaluated:
    """One model with its evaluations."""

    name: str
    """What the table calls it."""
    folder: Path
    """Of its evaluations, one a benchmark."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What else table.json says of it."""
    failed: bool = False
    """Whether its evaluation did not come to an end."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> why its files cannot be read."""

    def has(self, benchmark: str) -> bool:
        """Whether that evaluation is whole."""
        return (self.folder / benchmark / RESULT).exists()

    @cached_property
    def _read(self) -> dict[str, tuple[Lines, dict[str, Any]]]:
        return {}

    def lines(self, benchmark: str) -> Lines:
        """The answers to it, with judgements where there are any."""
        return self._of(benchmark)[0]

    def part(self, benchmark: str) -> dict[str, Any]:
        """What its eval.json says."""
        return self._of(benchmark)[1]

    def _of(self, benchmark: str) -> tuple[Lines, dict[str, Any]]:
        if benchmark not in self._read:
            folder = self.folder / benchmark
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            self._read[benchmark] = Evaluation.read(folder).benchmarks[benchmark], result
        return self._read[benchmark]

    def measures(self, benchmark: str) -> dict[str, Measure]:
        """Its measures; none before it is judged."""
        if not self.has(benchmark):
            return {}
        compat = bool(self.part(benchmark)["model"]["paper_compat"])
        return BENCHMARKS[benchmark].measures(self.lines(benchmark), compat)


def chosen(column: Column, models: Sequence[Evaluated]) -> str | None:
    """The benchmark that gives ``column``: one for all models, the first that any of them has."""
    return next((name for name in column.benchmarks if any(model.has(name) for model in models)), None)


def figure(
    model: Evaluated, base: Evaluated, benchmark: str, measure: str, scale: float, note: str
) -> dict[str, Any] | None:
    """One figure with its source and its difference from the base's; None where there is none yet."""
    mine = model.measures(benchmark).get(measure)
    if mine is None:
        return None
    part = model.part(benchmark)
    about = part["benchmarks"][benchmark]
    found: dict[str, Any] = {
        "benchmark": benchmark,
        "measure": measure,
        **{name: value and scale * value for name, value in estimate(mine).json().items()},
        "questions": about["questions"],
        "notes": [text for text in (note, about.get("rule")) if text],
        "source": {
            "by": f"svco {__version__}",
            "evaluation": str(model.folder / benchmark),
            "identity": part.get("identity"),
            "paper_compat": part["model"]["paper_compat"],
            **({"judge": about["judge"], "agreement": about["agreement"]} if about.get("judge") else {}),
        },
    }
    lacking = {name: about.get(name, 0) for name in ("unparseable", "empty", "not_asked")}
    lacking["not judged"] = about["questions"] - about["judged"] if "judged" in about else 0
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in lacking.items() if count)
    if told:
        found["notes"].append(f"of {about['questions']} answers {told}")
    if model is not base:
        found["against_base"] = _against(model, base, benchmark, measure, scale)
    return found


def _against(model: Evaluated, base: Evaluated, benchmark: str, measure: str, scale: float) -> dict[str, Any] | None:
    theirs = base.measures(benchmark)
    if measure not in theirs or not _alike(model.lines(benchmark), base.lines(benchmark)):
        return None
    mine = {measure: model.measures(benchmark)[measure]}
    (comparison,) = compare(mine, {measure: theirs[measure]}).values()
    gap = {name: value and scale * value for name, value in comparison.difference.json().items()}
    return {"difference": gap.pop("value"), **gap, "p": comparison.p, "pairs": comparison.pairs}


def _alike(one: Lines, other: Lines) -> bool:
    return [line["key"] for line in one] == [line["key"] for line in other] and same_judge(one, other)


def gap(
    column: Column, benchmark: str | None, model: Evaluated, held: Mapping[str, Path], where: Path
) -> dict[str, Any]:
    """Why a figure is not there, and the line that brings it."""
    known = [name for name in column.benchmarks if name in BENCHMARKS]
    if not known:
        return {"gap": "svco does not score it yet", "do": ""}
    there = [name for name in known if name in held]
    if there and all(name in model.problems for name in there):
        return {"gap": model.problems[there[-1]], "do": ""}
    if not there:
        return {"gap": f"{known[0]} is not in {where}", "do": f"cd {where} && {BENCHMARKS[known[0]].fetch}"}
    if benchmark and model.has(benchmark):
        return {"gap": "answered, not judged", "do": "the same command with --judge MODEL --yes"}
    if model.failed:
        return {"gap": "its evaluation failed", "do": f"see {model.folder / 'log.txt'}; the same command goes on"}
    return {"gap": "not evaluated yet", "do": "the same command goes on"}


def row_total(model: Evaluated, base: Evaluated, figures: Mapping[str, Any]) -> dict[str, Any]:
    """TOTAL with its error: that of the questions, paired with the base's, figures of one benchmark taken together."""
    mine = {title: one["value"] for title, one in figures.items() if "value" in one and one.get("against_base")}
    theirs = {title: mine[title] - figures[title]["against_base"]["difference"] for title in mine}
    value, over = total(theirs, mine)
    if value is None:
        return {"value": None, "se": None, "low": None, "high": None, "over": []}
    moves: dict[str, np.ndarray] = {}
    for column in [column for column in COLUMNS if column.title in over]:
        name, measure = figures[column.title]["benchmark"], column.measure
        a, b = model.measures(name)[measure], base.measures(name)[measure]
        change = a.influence / b.value - a.value * b.influence / b.value**2
        moves[name] = moves.get(name, 0) + (-1 if column.lower_is_better else 1) * change
    se = 100 / len(over) * math.sqrt(sum(standard_error(move) ** 2 for move in moves.values()))
    known = math.isfinite(se)
    ends = {"se": se, "low": value - Z * se, "high": value + Z * se} if known else dict.fromkeys(("se", "low", "high"))
    return {"value": value, **ends, "over": list(over)}


def rows_of(models: Sequence[Evaluated], held: Mapping[str, Path], where: Path) -> list[dict[str, Any]]:
    """The rows of table.json; the first of ``models`` is the base."""
    base, rows = models[0], []
    for model in models:
        figures: dict[str, Any] = {}
        for column in COLUMNS:
            name = chosen(column, models)
            note = column.notes.get(name or "", "")
            found = figure(model, base, name, column.measure, column.scale, note) if name else None
            figures[column.title] = found or gap(column, name, model, held, where)
        more = {
            name: figure(model, base, name, "score", 1.0 if "score" in BENCHMARKS[name].plain else 100.0, "")
            for name in others(models)
        }
        row = {"name": model.name, "kind": "base" if model is base else "run", **model.told, "figures": figures}
        rows.append(row | {"more": more, "total": None if model is base else row_total(model, base, figures)})
    return rows


def others(models: Sequence[Evaluated]) -> list[str]:
    """The benchmarks that were evaluated and give none of the paper's columns."""
    given = {chosen(column, models) for column in COLUMNS}
    return [name for name in BENCHMARKS if name not in given and any(model.has(name) for model in models)]

"""Two evaluations side by side: the same pairs and questions under two models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.errors import UserError
from ...basics.shipped import is_inside
from ...scores.measures import scored
from ...scores.statistics import Measure, compare
from . import RESULT
from .benchmarks.choices import read_lines
from .benchmarks.judged import judge_of, with_judgements
from .benchmarks.protocol import Lines
from .benchmarks.table import BENCHMARKS
from .measures import answered
from .scoring import SetScores


def answers_file(folder: Path, name: str) -> Path:
    """Where the answers of set or benchmark ``name`` are."""
    return folder / f"{name}.answers.jsonl"


@dataclass
class Evaluation:
    """What one model was found to say."""

    name: str
    """What tables call it."""
    corrupt: str | None = None
    """How the fourth view's images were corrupted; None without one."""
    sets: dict[str, SetScores] = field(default_factory=dict)
    """Name -> scores."""
    answers: dict[str, Lines] = field(default_factory=dict)
    """Name of a set -> its answers; only sets with answers."""
    benchmarks: dict[str, Lines] = field(default_factory=dict)
    """Name of a benchmark -> its answers."""

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """The evaluation in ``folder``; UserError if there is none, or half of one."""
        try:
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            found = cls(result["model"]["name"], result["corrupt"])
            sets, benchmarks = list(result["sets"]), list(result["benchmarks"])
            if outside := [name for name in (*sets, *benchmarks) if not is_inside(name)]:
                raise ValueError(f"it names {outside[0]!r}, outside of the folder")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no finished evaluation ({error}). Give the --out of an svco eval.") from None
        for name in sets:
            found.sets[name] = SetScores.load(folder / f"{name}.npz")
            if answers_file(folder, name).exists():
                found.answers[name] = read_lines(answers_file(folder, name))
        for name in benchmarks:
            found.benchmarks[name] = with_judgements(folder, name, read_lines(answers_file(folder, name)))
        return found


def paired(a: Evaluation, b: Evaluation, paper_compat: bool) -> dict[str, Any]:
    """``a`` minus ``b`` on what both were asked: {"name", "sets": {NAME: {measure: comparison}}, "benchmarks": the same}."""
    sets = {}
    for name in a.sets.keys() & b.sets.keys():
        ours, theirs = same_pairs(a.sets[name], b.sets[name])
        found = compare(scored(ours.logps, ours.tokens), scored(theirs.logps, theirs.tokens)) if len(ours) else {}
        if a.corrupt != b.corrupt:  # pictures corrupted in different ways are no pair
            found = {measure: comparison for measure, comparison in found.items() if "corrupt" not in measure}
        if name in a.answers and name in b.answers:
            found |= compare(*_same_answers(a.answers[name], b.answers[name]))
        sets[name] = {measure: comparison.json() for measure, comparison in found.items()}
    return {"name": b.name, "sets": sets, **paired_benchmarks(a, b, paper_compat)}


def paired_benchmarks(a: Evaluation, b: Evaluation, paper_compat: bool) -> dict[str, Any]:
    """``a`` minus ``b`` on the benchmarks whose questions both were asked: {"benchmarks": {NAME: {measure: comparison}},
    "not_compared": {NAME: why}}."""
    found, not_compared = {}, {}
    for name in [name for name in BENCHMARKS if name in a.benchmarks and name in b.benchmarks]:
        one, other = a.benchmarks[name], b.benchmarks[name]
        if [line["key"] for line in one] != [line["key"] for line in other]:
            not_compared[name] = "they were asked other questions"
        elif not same_judge(one, other):
            not_compared[name] = "one was judged by another judge or prompt, or not at all"
        else:
            measured = BENCHMARKS[name].measures
            apart = compare(measured(one, paper_compat), measured(other, paper_compat))
            found[name] = {measure: comparison.json() for measure, comparison in apart.items()}
    return {"benchmarks": found, "not_compared": not_compared}


def same_judge(one: Lines, other: Lines) -> bool:
    """Whether both were judged by one model with one prompt, or neither was judged."""
    judges = [judge_of(lines) for lines in (one, other)]
    who = [judge and [judge[name] for name in ("asked", "prompt_sha256", "parameters")] for judge in judges]
    return who[0] == who[1]


def same_pairs(a: SetScores, b: SetScores) -> tuple[SetScores, SetScores]:
    """The pairs that both hold, in ``a``'s order."""
    row_of = {key: row for row, key in enumerate(b.key.tolist())}
    rows = [(row, row_of[key]) for row, key in enumerate(a.key.tolist()) if key in row_of]
    ours, theirs = np.array(rows, dtype=int).reshape(-1, 2).T
    return a.take(ours), b.take(theirs)


def _same_answers(a: Lines, b: Lines) -> tuple[dict[str, Measure], dict[str, Measure]]:
    """The measures of the answers to questions that both were asked."""
    ours, theirs = ({(line["key"], line["side"]): line for line in lines} for lines in (a, b))
    both = sorted(ours.keys() & theirs.keys())
    return answered([ours[question] for question in both]), answered([theirs[question] for question in both])

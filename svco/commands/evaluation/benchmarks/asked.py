"""What every benchmark of generated answers shares: its questions asked, its lines, its counts, its errors by what was drawn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....scores.statistics import Measure
from ..generation import Question, ask
from .protocol import Asking, Lines


def say(
    what: str, questions: Sequence[Question], asking: Asking, unasked: str = "count as wrong"
) -> list[dict[str, Any]]:
    """Asks them; a line each, in order, on every rank: ``key``, ``query``, ``answer`` and ``asked`` (false: the image could not
    be read or the text holds a special token of the base, which is warned of, with what becomes of them: ``unasked``). A
    collective."""
    answers = ask(
        asking.subject,
        questions,
        asking.world,
        max_new_tokens=asking.max_new_tokens,
        at_once=asking.effort.answers,
        show=asking.show,
        what=what,
    )
    if unread := [question.key for question, answer in zip(questions, answers, strict=True) if answer is None]:
        warnings.warn(
            f"{len(unread)} questions of {what} could not be asked and {unasked}: their image cannot be read, or their "
            f"text holds a special token of the base: {', '.join(unread[:10])}",
            stacklevel=2,
        )
    return [
        {"key": question.key, "query": question.query, "answer": answer or "", "asked": answer is not None}
        for question, answer in zip(questions, answers, strict=True)
    ]


def counts(lines: Lines, rule: str, unparseable: int | None = None) -> dict[str, Any]:
    """What every benchmark's part of eval.json has beside its scores: how many answers could be used, and by which ``rule``."""
    told: dict[str, Any] = {"questions": len(lines)}
    if unparseable is not None:
        told["unparseable"] = unparseable
    return told | {
        "empty": sum(not line["answer"] for line in lines),
        "not_asked": sum(not line.get("asked", True) for line in lines),
        "rule": rule,
    }


def rate_by(units: Sequence[Any], hits: Sequence[float], cases: Sequence[float] | None = None) -> Measure:
    """Σ hits / Σ cases (1 each without), taken together by what was drawn: questions about one picture are no two draws."""
    _, place = np.unique(np.array([str(unit) for unit in units]), return_inverse=True)
    ones = np.ones(len(place)) if cases is None else np.asarray(cases, float)
    return Measure.rate(np.bincount(place, np.asarray(hits, float)), np.bincount(place, ones))


def mean_by(units: Sequence[Any], values: Sequence[float]) -> Measure:
    """The mean of ``values``, taken together by what was drawn."""
    _, place = np.unique(np.array([str(unit) for unit in units]), return_inverse=True)
    sums = np.bincount(place, np.asarray(values, float))
    return Measure.mean(sums * (len(sums) / len(place)))


def labels_of(lines: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(N,) str: label ``name`` of each line."""
    return np.array([str(line[name]) for line in lines])

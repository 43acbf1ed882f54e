"""NaturalBench as its release evaluates it: every question is asked of every image, and an answer is the earlier of the words
yes and no (A and B), as Baiqi-Li/NaturalBench@9967605 reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....scores.statistics import Measure
from ..generation import Question
from .asked import counts, say
from .naturalbench import ANSWERS, FETCH, SHOWN, official, read_samples
from .paired import by, estimates
from .protocol import Asking, Benchmark, Lines
from .rows import Picture, opener

NAME = "naturalbench_generated"
RULE = "the earlier of the words yes and no, A and B (NaturalBench)"


@dataclass(frozen=True)
class Asked:
    """One question about one image."""

    name: str
    """Sample, question, image."""
    query: str
    """The question with its suffix."""
    image: Picture
    """The image."""
    right: str
    """The right answer."""
    kind: str
    """``yes_no`` or ``multiple_choice``."""
    source: str
    """Where the image is from."""


def read(folder: Path) -> list[Asked]:
    """Of every sample question 0 about image 0 and 1, then question 1."""
    return [
        Asked(
            f"{sample.name}-{question}-{image}",
            sample.questions[question],
            sample.images[image],
            sample.answers[question][image],
            sample.kind,
            sample.source,
        )
        for sample in read_samples(folder)
        for question in (0, 1)
        for image in (0, 1)
    ]


def said(answer: str, kind: str) -> str | None:
    """Which of the two answers of a ``kind`` of question ``answer`` gives: that whose word stands first, whatever its case; None
    where neither stands."""
    found = {word: re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in ANSWERS[kind]}
    places = {word: match.start() for word, match in found.items() if match}
    return min(places, key=places.__getitem__) if places else None


def answer(items: Sequence[Asked], asking: Asking) -> list[dict[str, Any]]:
    """A line: :func:`~svco.commands.evaluation.benchmarks.asked.say`'s, ``right``, ``said`` (null: neither word), ``kind`` and
    ``source``. A collective."""
    questions = [Question(item.name, item.query, opener(item.image, item.name)) for item in items]
    return [
        line
        | {
            "right": item.right,
            "said": said(line["answer"], item.kind),
            "kind": item.kind,
            "source": item.source,
        }
        for item, line in zip(items, say(NAME, questions, asking), strict=True)
    ]


def _measured(lines: Lines) -> dict[str, Measure]:
    right = np.array([line["said"] == line["right"] for line in lines], dtype=bool)
    return official(right.reshape(-1, 2, 2))


def measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By sample. ``score``: G_Acc; beside it NaturalBench's four."""
    found = _measured(lines)
    return {"score": found["g_acc"], **found}


def summary(lines: Lines, paper_compat: bool) -> dict[str, Any]:
    """Its part of eval.json. ``score`` is G_Acc, from 0 to 1."""
    found = _measured(lines)
    return {
        "score": found["g_acc"].value,
        "samples": len(lines) // 4,
        **estimates(found),
        "by_kind": by(np.array([line["kind"] for line in lines[::4]]), found),
        **counts(lines, RULE, sum(line["said"] is None for line in lines)),
    }


BENCHMARK = Benchmark(
    NAME,
    title="NaturalBench, G_Acc (generated)",
    fetch=f"{FETCH}: the same files",
    read=read,
    answer=answer,
    measures=measures,
    summary=summary,
    headline="g_acc",
    shown=SHOWN,
)

"""What a benchmark is to an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....basics.dist import World
from ....basics.progress import Progress
from ....model.subject import Subject
from ....scores.statistics import Measure
from ..scoring import Effort

Lines = Sequence[Mapping[str, Any]]
"""What a model said, a JSON object a question or sample: the lines of ``NAME.answers.jsonl``. Each has a ``key``, unique."""


@dataclass(frozen=True)
class Asking:
    """Who is asked, and how."""

    subject: Subject
    """The model."""
    world: World
    """The ranks, all of which answer a share."""
    show: Progress
    """Bars, on the main rank."""
    effort: Effort
    """How much at a time."""
    max_new_tokens: int = 64
    """Tokens of an answer."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its files, how it is asked, how it is graded."""

    name: str
    """Its key in eval.json, its ``--benchmark NAME=DIR``, and its folder in ``--benchmarks DIR`` (with ``-`` or ``_``)."""
    title: str
    """What tables call it, with the rule of its score."""
    fetch: str
    """The line that fetches its files, and their licence as stated."""
    read: Callable[[Path], Sequence[Any]]
    """Its questions, of its folder; UserError for what is not the release. Nothing is decoded yet."""
    answer: Callable[[Sequence[Any], Asking], list[dict[str, Any]]]
    """What the model says to them, in order, on every rank. A collective."""
    measures: Callable[[Lines, bool], dict[str, Measure]]
    """Its figures by what was drawn (question, pair, sample), for errors and paired tests; ``score`` is the one of tables. The
    second argument: answers are read as the S-VCO authors read them."""
    summary: Callable[[Lines, bool], dict[str, Any]]
    """Its part of eval.json: ``score``, the estimate ``headline`` and whatever else it tells."""
    headline: str
    """The key of ``summary`` with the score and its error."""

"""One evaluation from its command line to its files."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..board import Progress as Bars
from ..dist import World
from ..errors import UserError
from .measures import summary
from .scoring import Effort, Progress, SetScores, open_set, score_set
from .subject import Subject, load_subject

RESULT = "eval.json"


@dataclass(frozen=True)
class Wanted:
    """What is to be evaluated, and how."""

    base: str
    """Folder or hub id."""
    adapter: str | None
    """PEFT folder, or None."""
    out: Path
    """Folder of the results."""
    sets: dict[str, tuple[str, ...]]
    """Name -> shard specs."""
    pairs: int = 0
    """Pairs of a set at most; 0: all."""
    generate: int = 0
    """Pairs of a set whose questions are answered."""
    max_new_tokens: int = 64
    """Tokens of an answer."""
    against: tuple[Path, ...] = ()
    """Folders of other evaluations."""
    mmvp: Path | None = None
    """Release folder of MMVP."""
    cv_bench: Path | None = None
    """Release folder of CV-Bench."""
    corrupt: str | None = None
    """Kind of corruption of the fourth view; None: three views."""
    model: dict[str, Any] | None = None
    """Options of ``load_subject``."""
    effort: Effort = Effort()  # noqa: RUF009 frozen
    """How much at a time."""


def wanted(arguments: argparse.Namespace) -> Wanted:
    """The command line, checked; UserError for what is no evaluation."""
    sets: dict[str, tuple[str, ...]] = {}
    for given in arguments.sets:
        name, equals, spec = given.partition("=")
        if not (equals and spec.strip() and re.fullmatch(r"[\w.-]+", name)):
            raise UserError(
                f"--set is {given!r}; it must be NAME=SHARDS, e.g. --set heldout=data_shards/heldout-*.tar."
            )
        sets[name] = (*sets.get(name, ()), spec)
    if not (sets or arguments.mmvp or arguments.cv_bench):
        raise UserError("Nothing to evaluate on: give --set NAME=SHARDS, --mmvp DIR or --cv-bench DIR.")
    options = {
        "dtype": arguments.dtype,
        "attention": arguments.attention,
        "max_text_tokens": arguments.max_text_tokens,
        "paper_compat": arguments.paper_compat,
    }
    effort = Effort(arguments.tokens_per_batch, arguments.workers, arguments.answers_per_batch, arguments.cache)
    return Wanted(
        arguments.base,
        arguments.adapter,
        arguments.out,
        sets,
        arguments.pairs,
        arguments.generate,
        arguments.max_new_tokens,
        tuple(arguments.against),
        arguments.mmvp,
        arguments.cv_bench,
        arguments.corrupt,
        options,
        effort,
    )


def run(question: Wanted, world: World) -> dict[str, Any]:
    """Evaluates and writes; what eval.json holds. A collective: every rank holds the model and scores its share."""
    show = Bars.over(world.is_main)
    world.on_main(lambda: _make_room(question))
    subject = load_subject(
        question.base, question.adapter, device=world.device, progress=world.is_main, **(question.model or {})
    )
    told: dict[str, Any] = {"model": subject.facts(), "sets": {}, "benchmarks": {}}
    for name, specs in question.sets.items():
        scores, answers = _set(question, subject, name, specs, world, show)
        told["sets"][name] = summary(scores, answers)
    world.on_main(lambda: _write(question, told))
    return told


def _set(
    question: Wanted, subject: Subject, name: str, specs: tuple[str, ...], world: World, show: Progress
) -> tuple[SetScores, list[dict[str, Any]]]:
    """Scores and answers of one set, written."""
    split = open_set(subject, name, specs, world, question.effort, show)
    scores = score_set(subject, split, world, at_most=question.pairs, effort=question.effort, show=show)
    world.on_main(lambda: scores.save(question.out / f"{name}.npz"))
    return scores, []


def _make_room(question: Wanted) -> None:
    """The folder of the results; UserError when it holds an evaluation already."""
    if (question.out / RESULT).exists():
        raise UserError(
            f"{question.out} holds an evaluation already ({RESULT}). Give another --out, or delete that folder."
        )
    try:
        question.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder --out {question.out} cannot be made: {error.strerror}.") from None


def _write(question: Wanted, told: dict[str, Any]) -> None:
    """``eval.json``, last of all: where it is, the evaluation is whole."""
    temporary = question.out / f".{RESULT}.tmp"
    temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(question.out / RESULT)

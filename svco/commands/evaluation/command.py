"""One evaluation from its command line to its files."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import Progress, shown
from ...batches.split import Split
from ...model.subject import Subject, load_subject
from ...recipe.config import CorruptConfig
from . import RESULT, cv_bench, mmvp
from .against import BENCHMARKS, Evaluation, answers_file, paired
from .choices import Item, put
from .figures import draw
from .generation import answer_set
from .measures import summary
from .report import page
from .scoring import Effort, open_set, score_set


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
    generate_on: tuple[str, ...] = ()
    """The sets whose questions are answered; empty: every set."""
    max_new_tokens: int = 64
    """Tokens of an answer."""
    against: tuple[Path, ...] = ()
    """Folders of other evaluations."""
    mmvp: Path | None = None
    """Release folder of MMVP."""
    cv_bench: Path | None = None
    """Release folder of CV-Bench."""
    corrupt: CorruptConfig | None = None
    """How images of the fourth view are corrupted; None: three views."""
    options: dict[str, Any] = field(default_factory=dict)
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
        if name in BENCHMARKS:
            raise UserError(f"--set {name}=: that name is a benchmark's. Call the set otherwise.")
        sets[name] = (*sets.get(name, ()), spec)
    if not (sets or arguments.mmvp or arguments.cv_bench):
        raise UserError("Nothing to evaluate on: give --set NAME=SHARDS, --mmvp DIR or --cv-bench DIR.")
    if unknown := sorted(set(arguments.generate_on) - set(sets)):
        raise UserError(f"--generate-on {unknown[0]}: there is no --set of that name.")
    for name, least in (("pairs", 0), ("generate", 0), ("max_new_tokens", 1), ("answers_per_batch", 1), ("workers", 0)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be at least {least}.")
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
        tuple(arguments.generate_on),
        arguments.max_new_tokens,
        tuple(arguments.against),
        arguments.mmvp,
        arguments.cv_bench,
        CorruptConfig(kind=arguments.corrupt) if arguments.corrupt else None,
        options,
        effort,
    )


def run(question: Wanted, world: World) -> dict[str, Any]:
    """Evaluates and writes; what eval.json holds. A collective: every rank holds the model and scores its share."""
    show = shown(world.is_main)
    world.on_main(lambda: _make_room(question))
    items = world.on_main(lambda: _read_benchmarks(question))
    others = world.on_main(lambda: {str(folder): Evaluation.read(folder) for folder in question.against})
    subject = load_subject(
        question.base, question.adapter, device=world.device, progress=world.is_main, **question.options
    )
    mine, sets = Evaluation(subject.name, question.corrupt.kind if question.corrupt else None), {}
    for name, specs in question.sets.items():
        split = open_set(subject, name, specs, world, question.effort, show)
        _score(question, subject, name, split, mine, world, show)
        sets[name] = summary(mine.sets[name], mine.answers.get(name, ()))
    asking = _asking(question, show)
    for name, questions in items.items():
        mine.benchmarks[name] = put(subject, questions, world, what=name, **asking)
        world.on_main(partial(_write_lines, answers_file(question.out, name), mine.benchmarks[name]))
    compat = question.options.get("paper_compat", False)
    told = {
        "model": subject.facts(),
        "corrupt": mine.corrupt,
        "sets": sets,
        "benchmarks": {name: BENCHMARKS[name].summary(lines, compat) for name, lines in mine.benchmarks.items()},
    }
    world.on_main(lambda: _finish(question, mine, others, told))
    return told


def _score(
    question: Wanted, subject: Subject, name: str, split: Split, mine: Evaluation, world: World, show: Progress
) -> None:
    """The scores and answers of one set, into ``mine`` and onto the disk."""
    scores = score_set(
        subject, split, world, at_most=question.pairs, corrupt=question.corrupt, effort=question.effort, show=show
    )
    mine.sets[name] = scores
    world.on_main(lambda: scores.save(question.out / f"{name}.npz"))
    if question.generate and name in (question.generate_on or question.sets):
        first = [index for index in range(len(split.shards)) if not split.lengths.reasons[index]][: question.generate]
        answers = answer_set(subject, split.shards, first, world, **_asking(question, show))
        mine.answers[name] = answers
        world.on_main(lambda: _write_lines(answers_file(question.out, name), answers))


def _asking(question: Wanted, show: Progress) -> dict[str, Any]:
    return {"max_new_tokens": question.max_new_tokens, "at_once": question.effort.answers, "show": show}


def _read_benchmarks(question: Wanted) -> dict[str, list[Item]]:
    folders = {mmvp.NAME: question.mmvp, cv_bench.NAME: question.cv_bench}
    return {name: BENCHMARKS[name].read(folder) for name, folder in folders.items() if folder}


def _finish(question: Wanted, mine: Evaluation, others: dict[str, Evaluation], told: dict[str, Any]) -> None:
    """The paired comparisons, the page, the figures; and eval.json last: where it is, the evaluation is whole."""
    compat = question.options.get("paper_compat", False)
    against: dict[str, Any] = {}
    for folder, other in others.items():
        label = other.name if other.name not in {mine.name, *against} else folder
        against[label] = {"folder": folder, **paired(mine, other, compat)}
    told |= {"against": against} if against else {}
    (question.out / "eval.md").write_text(page(told), encoding="utf-8")
    draw(told, question.out)
    write_whole(question.out / RESULT, json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


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

"""One evaluation from its command line to its files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import Progress, shown
from ...basics.shipped import located
from ...basics.strict_json import json_text
from ...batches.split import Split
from ...model.provenance import DIGESTS, check_subject, subject_digests
from ...model.subject import Subject, load_subject
from ...recipe.config import CorruptConfig
from . import RESULT
from .against import Evaluation, answers_file, paired
from .benchmarks.protocol import Asking
from .benchmarks.table import BENCHMARKS, chosen_benchmarks
from .figures import draw
from .generation import answer_set
from .measures import summary
from .quantise import asked_quantise
from .report import page
from .scoring import Effort, open_set, score_set
from .trained import check_untrained
from .wanted import Wanted, to_do


def read_arguments(arguments: argparse.Namespace) -> Wanted:
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
    benchmarks = chosen_benchmarks(arguments.benchmarks, arguments.benchmark)
    if not (sets or benchmarks):
        raise UserError("Nothing to evaluate on: give --set NAME=SHARDS, --benchmark NAME=DIR or --benchmarks DIR.")
    if unknown := sorted(set(arguments.generate_on) - set(sets)):
        raise UserError(f"--generate-on {unknown[0]}: there is no --set of that name.")
    options = {
        "dtype": arguments.dtype,
        "attention": arguments.attention,
        "max_text_tokens": arguments.max_text_tokens,
        "paper_compat": arguments.paper_compat,
        **asked_quantise(arguments),
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
        benchmarks,
        CorruptConfig(kind=arguments.corrupt) if arguments.corrupt else None,
        arguments.other_base,
        arguments.allow_overlap,
        arguments.apart,
        options,
        effort,
    )


def run(wanted: Wanted, world: World) -> dict[str, Any]:
    """Evaluates and writes; what (the last) eval.json holds. A collective: every rank holds the model and scores its share."""
    show = shown(world.is_main)
    parts = world.on_main(lambda: to_do(wanted))
    if not parts:
        return {}
    wanted = replace(
        wanted,
        sets={name: specs for part in parts for name, specs in part.sets.items()},
        benchmarks={name: folder for part in parts for name, folder in part.benchmarks.items()},
    )
    items = world.on_main(lambda: {name: BENCHMARKS[name].read(folder) for name, folder in wanted.benchmarks.items()})
    given = {name: specs for name, specs in wanted.sets.items() if specs}
    world.on_main(lambda: check_untrained(wanted.base, wanted.adapter, given, wanted.cache, wanted.allow_overlap))
    others = world.on_main(lambda: {str(folder): Evaluation.read(folder) for folder in wanted.against})
    base = located(wanted.base)
    world.on_main(lambda: check_subject(base, wanted.adapter, wanted.cache, wanted.other_base))
    subject = load_subject(
        base, wanted.adapter, device=world.device, progress=world.is_main, check=False, **wanted.options
    )
    weights = world.on_main(lambda: subject_digests(base, wanted.adapter, wanted.cache / DIGESTS, wanted.held))
    result: dict[str, Any] = {}
    for part in parts:
        result = _evaluate(part, subject, weights, items, others, world, show)
    return result


def _evaluate(
    wanted: Wanted,
    subject: Subject,
    weights: Mapping[str, Any],
    items: Mapping[str, Any],
    others: dict[str, Evaluation],
    world: World,
    show: Progress,
) -> dict[str, Any]:
    mine, sets = Evaluation(subject.name, wanted.corrupt.kind if wanted.corrupt else None), {}
    for name, specs in wanted.sets.items():
        split = open_set(subject, name, specs, world, wanted.effort, show)
        _score(wanted, subject, name, split, mine, world, show)
        sets[name] = summary(mine.sets[name], mine.answers.get(name, ()))
    asking = Asking(subject, world, show, wanted.effort)
    if wanted.max_new_tokens:
        asking = replace(asking, max_new_tokens=wanted.max_new_tokens, max_free_tokens=wanted.max_new_tokens)
    for name in wanted.benchmarks:
        mine.benchmarks[name] = BENCHMARKS[name].answer(items[name], asking)
        world.on_main(partial(_write_lines, answers_file(wanted.out, name), mine.benchmarks[name]))
    result = {
        "model": subject.facts() | {"weights": weights},
        **({"identity": wanted.identity} if wanted.identity else {}),
        "corrupt": mine.corrupt,
        "sets": sets,
        "benchmarks": {
            name: BENCHMARKS[name].summary(lines, wanted.paper_compat) for name, lines in mine.benchmarks.items()
        },
    }
    world.on_main(lambda: _finish(wanted, mine, others, result))
    return result


def _score(
    wanted: Wanted, subject: Subject, name: str, split: Split, mine: Evaluation, world: World, show: Progress
) -> None:
    """The scores and answers of one set, into ``mine`` and onto the disk."""
    scores = score_set(
        subject, split, world, at_most=wanted.pairs, corrupt=wanted.corrupt, effort=wanted.effort, show=show
    )
    mine.sets[name] = scores
    world.on_main(lambda: scores.save(wanted.out / f"{name}.npz"))
    if wanted.generate and name in (wanted.generate_on or wanted.sets):
        first = [index for index in range(len(split.shards)) if not split.lengths.reasons[index]][: wanted.generate]
        answers = answer_set(
            subject,
            split.shards,
            first,
            world,
            max_new_tokens=wanted.max_new_tokens or Asking.max_new_tokens,
            at_once=wanted.effort.answers,
            show=show,
        )
        mine.answers[name] = answers
        world.on_main(lambda: _write_lines(answers_file(wanted.out, name), answers))


def _finish(wanted: Wanted, mine: Evaluation, others: dict[str, Evaluation], result: dict[str, Any]) -> None:
    """The paired comparisons, the page, the figures; and eval.json last: where it is, the evaluation is whole."""
    against: dict[str, Any] = {}
    for folder, other in others.items():
        label = other.name if other.name not in {mine.name, *against} else folder
        against[label] = {"folder": folder, **paired(mine, other, wanted.paper_compat)}
    if against:
        result["against"] = against
    write_whole(wanted.out / "eval.md", page(result))
    draw(result, wanted.out)
    write_whole(wanted.out / RESULT, json_text(result, indent=2, ascii_only=False) + "\n")


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    write_whole(path, "".join(json_text(line, ascii_only=False) + "\n" for line in lines))

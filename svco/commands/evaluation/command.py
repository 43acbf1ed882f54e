"""One evaluation from its command line to its files."""

from __future__ import annotations

import argparse
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
from ...basics.shipped import located, typed
from ...basics.strict_json import json_text
from ...batches.split import Split
from ...data.shards import DEFAULT_CACHE
from ...model.provenance import check_subject
from ...model.subject import Subject, load_subject
from ...recipe.config import CorruptConfig
from . import RESULT
from .against import Evaluation, answers_file, paired
from .benchmarks.protocol import Asking
from .benchmarks.table import BENCHMARKS, held_by, known
from .figures import draw
from .generation import answer_set
from .measures import summary
from .report import page
from .scoring import Effort, open_set, score_set
from .trained import check_untrained


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
    benchmarks: dict[str, Path] = field(default_factory=dict)
    """Name -> folder of its official files."""
    corrupt: CorruptConfig | None = None
    """How images of the fourth view are corrupted; None: three views."""
    other_base: bool = False
    """The adapter may have been trained on another base."""
    allow_overlap: str = "none"
    """What a set may share with the pairs that the model was trained on (``data.allow_overlap``)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ``load_subject``."""
    effort: Effort = Effort()  # noqa: RUF009 frozen
    """How much at a time."""

    @property
    def paper_compat(self) -> bool:
        """Whether answers are read as the S-VCO authors read them."""
        return self.options.get("paper_compat", False)


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
    benchmarks = _benchmarks(arguments)
    if not (sets or benchmarks):
        raise UserError("Nothing to evaluate on: give --set NAME=SHARDS, --benchmark NAME=DIR or --benchmarks DIR.")
    if unknown := sorted(set(arguments.generate_on) - set(sets)):
        raise UserError(f"--generate-on {unknown[0]}: there is no --set of that name.")
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
        benchmarks,
        CorruptConfig(kind=arguments.corrupt) if arguments.corrupt else None,
        arguments.other_base,
        arguments.allow_overlap,
        options,
        effort,
    )


def _benchmarks(arguments: argparse.Namespace) -> dict[str, Path]:
    """{name: folder} of what ``--benchmarks``, and over it ``--benchmark``, ask for."""
    found = {} if arguments.benchmarks is None else held_by(arguments.benchmarks)
    for given in arguments.benchmark:
        name, equals, folder = given.partition("=")
        if not (equals and folder.strip()):
            raise UserError(f"--benchmark is {given!r}; it must be NAME=DIR, e.g. --benchmark mmvp=benchmarks/mmvp.")
        found[known(name)] = typed(folder)
    return {name: found[name] for name in BENCHMARKS if name in found}


def run(wanted: Wanted, world: World) -> dict[str, Any]:
    """Evaluates and writes; what eval.json holds. A collective: every rank holds the model and scores its share."""
    show = shown(world.is_main)
    world.on_main(lambda: _make_room(wanted))
    items = world.on_main(lambda: {name: BENCHMARKS[name].read(folder) for name, folder in wanted.benchmarks.items()})
    given = {name: specs for name, specs in wanted.sets.items() if specs}
    cache = Path(wanted.effort.cache or DEFAULT_CACHE)
    world.on_main(lambda: check_untrained(wanted.base, wanted.adapter, given, cache, wanted.allow_overlap))
    others = world.on_main(lambda: {str(folder): Evaluation.read(folder) for folder in wanted.against})
    base, cache = located(wanted.base), Path(wanted.effort.cache or DEFAULT_CACHE).expanduser()
    world.on_main(lambda: check_subject(base, wanted.adapter, cache, wanted.other_base))
    subject = load_subject(
        base, wanted.adapter, device=world.device, progress=world.is_main, check=False, **wanted.options
    )
    mine, sets = Evaluation(subject.name, wanted.corrupt.kind if wanted.corrupt else None), {}
    for name, specs in wanted.sets.items():
        split = open_set(subject, name, specs, world, wanted.effort, show)
        _score(wanted, subject, name, split, mine, world, show)
        sets[name] = summary(mine.sets[name], mine.answers.get(name, ()))
    asking = Asking(subject, world, show, wanted.effort, wanted.max_new_tokens)
    for name, asked in items.items():
        mine.benchmarks[name] = BENCHMARKS[name].answer(asked, asking)
        world.on_main(partial(_write_lines, answers_file(wanted.out, name), mine.benchmarks[name]))
    result = {
        "model": subject.facts(),
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
            max_new_tokens=wanted.max_new_tokens,
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


def _make_room(wanted: Wanted) -> None:
    """The folder of the results; UserError when it holds an evaluation already."""
    if (wanted.out / RESULT).exists():
        raise UserError(
            f"{wanted.out} holds an evaluation already ({RESULT}). Give another --out, or delete that folder."
        )
    try:
        wanted.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder --out {wanted.out} cannot be made: {error.strerror}.") from None

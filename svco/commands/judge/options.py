"""The options of ``svco judge``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...basics.errors import UserError
from ...basics.intervals import real, whole
from ...basics.progress import shown
from ...basics.shipped import typed
from ...endpoint.options import add_asking, asked

if TYPE_CHECKING:
    from .command import Wanted


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``judge`` takes."""
    parser.description = (
        "Has a model behind any OpenAI-compatible endpoint (environment: OPENAI_BASE_URL, OPENAI_API_KEY) judge the answers that "
        "evaluations hold to MMHal-Bench, MM-Vet and LLaVA-Bench-W, and figures them: eval.json and eval.md are written anew. "
        "Replies are kept in a file: a command given again asks for nothing that is known."
    )
    parser.add_argument("folders", nargs="+", type=typed, metavar="DIR", help="--out of svco eval")
    parser.add_argument("--model", required=True, help="the judge's name, as the endpoint knows it")
    parser.add_argument(
        "--benchmark", action="append", default=[], metavar="NAME", help="judge this one alone; may be given again"
    )
    add_judging(parser, "judge.sqlite beside the first evaluation")


def run(arguments: argparse.Namespace) -> int:
    """Judges; the exit code."""
    from .command import JUDGED, judge

    benchmarks = tuple(_judged(name, JUDGED) for name in arguments.benchmark) or JUDGED
    wanted = judging(arguments, arguments.model)
    return judge(replace(wanted, folders=tuple(arguments.folders), benchmarks=benchmarks), shown(True))


def add_judging(parser: argparse._ActionsContainer, cache: str) -> None:
    """Adds how a judge is asked; ``cache``: what is said of where replies are kept."""
    parser.add_argument(
        "--judgements", type=whole(1, 1000), default=1, metavar="N", help="of each answer (default %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=real("[0, 2]"), metavar="T", help="of the judge, instead of the prompt's own"
    )
    parser.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a benchmark's judge's prompt instead of svco's own; may be given again",
    )
    parser.add_argument(
        "--turns",
        type=whole(1, 100),
        default=2,
        metavar="N",
        help="how often a judgement is asked for until it can be read (default %(default)s)",
    )
    add_asking(parser, cache)


def judging(arguments: argparse.Namespace, model: str) -> Wanted:
    """Who judges and how, of what :func:`add_judging` added; no folders yet."""
    from .command import JUDGED, Wanted

    return Wanted(
        folders=(),
        model=model,
        prompts=_read_prompts(arguments.prompts, JUDGED),
        judgements=arguments.judgements,
        temperature=arguments.temperature,
        turns=arguments.turns,
        **asked(arguments),
    )


def _read_prompts(given: list[str], known: tuple[str, ...]) -> dict[str, Path]:
    """{benchmark: file} of ``--prompts NAME=FILE``; UserError for what is none."""
    found = {}
    for word in given:
        name, equals, file = word.partition("=")
        if not (equals and file.strip()):
            raise UserError(f"--prompts is {word!r}; it must be NAME=FILE, e.g. --prompts mmhal=mine.yaml.")
        found[_judged(name, known)] = typed(file)
    return found


def _judged(name: str, known: tuple[str, ...]) -> str:
    found = name.strip().lower().replace("-", "_")
    if found not in known:
        raise UserError(f"No judge is asked about {name!r}; it is about {', '.join(known)}.")
    return found

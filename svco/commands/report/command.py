"""What ``svco report`` does with its arguments."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...basics.errors import UserError
from ...basics.files import write_whole
from .runs import Run, find, read_all

if TYPE_CHECKING:
    from ..probe.page import Card


def run(arguments: Namespace) -> int:
    """Writes the page, with ``--watch`` again and again while a run goes on; always 0."""
    output: Path = arguments.output
    if output.is_dir():
        raise UserError(f"-o {output} is a folder; give a file, e.g. {output / 'report.html'}.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder of -o {output} cannot be made: {error.strerror}. Choose another.") from None
    runs = read_all(find(arguments.runs))
    try:
        if arguments.watch and any(run.goes_on for run in runs):
            _write(arguments, runs, arguments.watch)
            print(f"{output}: open it, it loads itself anew; this command ends when the runs do", flush=True)
            while any(run.goes_on for run in runs):
                time.sleep(arguments.watch)
                runs = read_all(find(arguments.runs))
                _write(arguments, runs, arguments.watch if any(run.goes_on for run in runs) else None)
    except KeyboardInterrupt:
        print("no longer watching", file=sys.stderr)
        runs = read_all(find(arguments.runs))
    _write(arguments, runs, None, whole=True)
    told = sum(len(run.problems) for run in runs)
    print(f"{output}: {len(runs)} run{'s' * (len(runs) > 1)}" + (f", {told} things to tell of them" if told else ""))
    return 0


def _write(arguments: Namespace, runs: Sequence[Run], again: int | None, whole: bool = False) -> None:
    from .page import page

    cards: list[Card] = []
    problems: list[str] = []
    if whole and arguments.tokens:
        from .tokens import token_cards

        cards, problems = token_cards(runs, arguments.tokens)
    title = arguments.title or ", ".join(run.name for run in runs)
    text = page(
        runs,
        title,
        evaluated=arguments.evaluations,
        shown=arguments.examples,
        cards=cards,
        problems=problems,
        again=again,
    )
    write_whole(arguments.output, text)

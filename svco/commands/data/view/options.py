"""The options of ``svco data view``."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from ....basics.errors import UserError
from ....basics.intervals import whole
from ....basics.progress import shown
from ....basics.shipped import typed
from ..common_options import add_images


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool to those of ``svco data``."""
    parser = tools.add_parser(
        "view",
        help="a gallery of pairs, to look at and to accept or reject in a browser",
        description="Writes a folder with one page that any browser opens from the disk: both pictures with a slider between "
        "them and their difference, the question, both answers with the words marked in which they differ, filters and search. "
        "Pairs of a file of records can be accepted and rejected; the choices are saved as a file that svco data build takes "
        "with --exclude.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="PAIRS",
        help="records.jsonl, what a rewriting rejected (.rejected.jsonl), or shards",
    )
    add_images(parser, " (needed for records)")
    parser.add_argument("-o", "--output", type=typed, default=Path("gallery"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=whole(16, 32767),
        default=448,
        metavar="PIXELS",
        help="of the pictures at most (default %(default)s)",
    )
    parser.add_argument("--limit", type=whole(1), metavar="N", help="only the first N pairs")
    parser.set_defaults(work=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the tool; its exit code."""
    from .entries import opened
    from .gallery import INDEX, write_gallery

    entries, choosable = opened(arguments.inputs, arguments.images)
    title = ", ".join(Path(name).name for name in arguments.inputs[:3])
    entries = islice(entries, arguments.limit)
    made = write_gallery(entries, arguments.output, title, arguments.size, choosable, shown(True))
    if not made.pairs:
        raise UserError(f"{title} holds no pairs.")
    missing = f", {made.unreadable:,} pictures cannot be shown" if made.unreadable else ""
    print(f"{made.pairs:,} pairs{missing}: open {arguments.output / INDEX}")
    if choosable and made.pairs:
        print("next: save your choices there, then svco data build ... --exclude choices.json")
    return 0

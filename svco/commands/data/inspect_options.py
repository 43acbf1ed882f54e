"""The options of ``svco data inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...basics.progress import shown
from ...basics.shipped import typed
from ...basics.strict_json import json_text
from .common_options import add_base, add_images, load_base


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool to those of ``svco data``."""
    parser = tools.add_parser(
        "inspect",
        help="what is in records or shards: counts by source, type, kind and licence, lengths of texts, sizes of pictures",
        description="Counts pairs by split, source, type, kind and licence, and shows how long their texts and how large their "
        "pictures are. Nothing is decoded and nothing judged: svco data verify does that.",
    )
    parser.add_argument("inputs", nargs="+", metavar="PAIRS", help="records.jsonl, or shards as for verify")
    add_images(parser, " (of records: for the sizes of their pictures)")
    add_base(parser, "count its tokens too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "-o", "--output", type=typed, metavar="PICTURE", help="draw the lengths and sizes as a picture (.png)"
    )
    parser.set_defaults(work=run)


def run(arguments: argparse.Namespace) -> int:
    """Inspects; exit code 1 where a pair cannot be read."""
    from .images import Roots
    from .inspection import inspect
    from .inspection_page import draw, tables

    roots = Roots(arguments.images) if arguments.images else None
    found = inspect(arguments.inputs, roots, load_base(arguments), shown(True))
    print(json_text(found.facts(), indent=1) if arguments.json else tables(found))
    if arguments.output:
        draw(found, Path(arguments.output))
    return 1 if found.bad else 0

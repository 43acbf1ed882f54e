"""The options of ``svco data verify``."""

from __future__ import annotations

import argparse

from ...basics.progress import shown
from .common_options import add_base, add_near_duplicates, load_base

AS_BUILT = -1
"""Bits for near-duplicates where none are asked for: those that the manifest names, else the default."""


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool to those of ``svco data``."""
    parser = tools.add_parser("verify", help="read every byte of shards; exit code 1 when something is wrong")
    parser.add_argument("shards", nargs="+", help="paths, brace patterns, directories or URLs")
    add_base(parser, "list all that a run with it would refuse, by name and reason")
    parser.add_argument(
        "--equal-pictures", action="store_true", help="the run's data.equal_pictures: take pairs whose pictures are one"
    )
    add_near_duplicates(parser, "a problem in two splits (default: as the shards were built, else 7)", AS_BUILT)
    parser.set_defaults(work=run)


def run(arguments: argparse.Namespace) -> int:
    """Verifies; exit code 1 when something is wrong."""
    from .manifest import built_with
    from .verify import verify

    family = load_base(arguments)
    near = arguments.near_duplicates
    if near == AS_BUILT:
        near = built_with(arguments.shards)
    found = verify(arguments.shards, None, shown(True), family, arguments.equal_pictures, near)
    for split, count in found.pairs.items():
        print(f"{split:<12}{count:>9} pairs")
    for kind, count in sorted(found.types.items()):
        print(f"  {kind:<10}{count:>9}")
    for passed in found.passed:
        print(f"read past: {passed}")
    print(f"every byte of {found.shards} shards was read; {found.compared} of them a MANIFEST.json tells of")
    for problem in found.problems:
        print(f"problem: {problem}")
    print(
        f"{len(found.problems)} problems"
        if found.problems
        else "all is well: every shard, sample and picture reads, no pair is repeated, no picture is in two splits"
        + ("" if near is None else f", none there looks like another (within {near} bits)")
        + (f", and a run with {arguments.base} takes every pair" if family else "")
    )
    return 1 if found.problems else 0

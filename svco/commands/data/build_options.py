"""The options of ``svco data build``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...basics.errors import BadSample
from ...basics.intervals import real, whole
from ...basics.progress import shown
from ...basics.shipped import typed
from .common_options import add_images, add_near_duplicates, add_shard_options

if TYPE_CHECKING:
    from .build import Built
    from .choices import Rejects

GIANT, FEW = 0.05, 10
"""Share of the pairs, and pairs, beyond which the largest component is spoken of: it goes into one split whole."""


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool to those of ``svco data``."""
    parser = tools.add_parser(
        "build",
        help="records to shards, split with nothing that looks alike in two splits",
        description="Writes shards, their indices and MANIFEST.json. Pictures that are one or look alike, mirrored or not, join "
        "their pairs into components that go into one split whole; splits have their share of every source and type. A build "
        "that was ended goes on with the same command, and ends with the same bytes.",
    )
    parser.add_argument("records", type=typed, help="records.jsonl")
    add_images(parser)
    parser.add_argument("--seed", type=whole(), default=0)
    parser.add_argument(
        "--exclude", type=typed, metavar="CHOICES", help="leave out what was rejected in a gallery (svco data view)"
    )
    parser.add_argument("--val", type=real("[0, 1)"), default=0.02, help="share of validation pairs (default 0.02)")
    parser.add_argument("--heldout", type=real("[0, 1)"), default=0.02, help="share of held-out pairs (default 0.02)")
    add_near_duplicates(parser, "one split has both (default 7)")
    parser.add_argument(
        "--size",
        type=whole(8, 32767),
        metavar="PIXELS",
        help="reduce pictures whose longer side has more, to it; none is enlarged (default: all are kept as they are)",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="threads that read, decode and encode (default: one a core); the shards are the same with any number",
    )
    add_shard_options(parser)
    parser.set_defaults(work=run)


def run(arguments: argparse.Namespace) -> int:
    """Builds; exit code 0."""
    from ...basics.files import file_digest
    from .build import BuildPlan, build
    from .choices import Rejects
    from .images import Roots
    from .records import stream_records

    plan = BuildPlan(
        arguments.seed,
        arguments.val,
        arguments.heldout,
        arguments.pairs_per_shard,
        arguments.max_unreadable,
        arguments.near_duplicates,
        arguments.size,
    )
    no_contrast: list[BadSample] = []
    rejects = Rejects(arguments.exclude) if arguments.exclude else None
    built = build(
        stream_records(arguments.records, no_contrast),
        Roots(arguments.images),
        arguments.output,
        plan,
        shown(True),
        workers=arguments.workers,
        no_contrast=no_contrast,
        rejects=rejects,
        origin=lambda: {name: _file(path, file_digest) for name, path in _files(arguments).items()},
    )
    _say(built, no_contrast, rejects)
    print(f"next: svco data verify {arguments.output}")
    return 0


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    return {"records": arguments.records, **({"choices": arguments.exclude} if arguments.exclude else {})}


def _file(path: Path, digest: Any) -> dict[str, str]:
    return {"file": path.name, "sha256": digest(path)}


def _say(built: Built, no_contrast: list[BadSample], rejects: Rejects | None) -> None:
    manifest = built.manifest
    if built.pictures_used or built.shards_used:
        print(f"of an unfinished build were used: {built.pictures_used} pictures, {built.shards_used} shards")
    for split, count in manifest["pairs"].items():
        print(f"{split:<8}{count:>9} pairs")
    for stratum in manifest["strata"] if len(manifest["strata"]) > 1 else ():
        counts = ", ".join(f"{stratum[split]} {split}" for split in manifest["pairs"])
        print(f"  {stratum['source'] or '(no source)'}, {stratum['type']}: {counts}")
    left, strangers = manifest["left_out"], rejects.strangers if rejects else 0
    print(
        f"left out: {left['unreadable']} unreadable, {left['duplicate']} repeated, {left['no_contrast']} no contrast, "
        f"{left['rejected']} rejected"
        + (f"; {strangers} more were rejected and are not among the records" if strangers else "")
    )
    for error in no_contrast[:20]:
        print(f"left out ({error.reason}): {error}")
    if len(no_contrast) > 20:
        print(f"left out: {len(no_contrast)} such pairs in all")
    total, largest = sum(manifest["pairs"].values()), manifest["components"]["largest"]
    if largest > max(FEW, GIANT * total):
        near = manifest["build"]["near_duplicates"]
        lower = (
            "joined by pictures that are one"
            if near is None
            else f"joined by pictures that are one or whose hashes differ in at most {near} bits; a smaller --near-duplicates, "
            "or off, joins less"
        )
        print(f"note: {largest} of {total} pairs ({largest / total:.0%}) hang together and are in one split, {lower}")

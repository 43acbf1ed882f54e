"""The options of ``svco data filter``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ....basics.intervals import real, whole
from ....basics.ranks import add_ranks, start_ranks
from ....basics.shipped import located, typed
from ..common_options import add_images, add_unreadable
from ..images import Roots


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool."""
    parser = tools.add_parser(
        "filter",
        help="keep the pairs whose images are alike in meaning and unlike in looks",
        description="Keeps a pair when the cosine of its two images is above a threshold under CLIP or SigLIP and below one "
        "under DINOv2. Mirrored pairs are kept. Vectors are kept by content: a run that was killed, or one with other "
        "thresholds, computes none again.",
    )
    parser.add_argument("records", type=typed, help="records.jsonl")
    add_images(parser)
    parser.add_argument(
        "--clip",
        required=True,
        metavar="MODEL",
        help="CLIP or SigLIP: folder or hub id; the paper has google/siglip-so400m-patch14-384",
    )
    parser.add_argument(
        "--dino", required=True, metavar="MODEL", help="DINOv2: folder or hub id; the paper has facebook/dinov2-large"
    )
    parser.add_argument(
        "-o", "--output", type=typed, default=Path("filtered"), help="empty folder (default: %(default)s)"
    )
    parser.add_argument(
        "--clip-above", type=real("[-1, 1]"), default=0.7, metavar="COSINE", help="default: %(default)s, the paper's"
    )
    parser.add_argument(
        "--dino-below", type=real("[-1, 1]"), default=0.5, metavar="COSINE", help="default: %(default)s, the paper's"
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="TYPE=CLIP,DINO",
        help="of one contrast type; several may be given",
    )
    parser.add_argument(
        "--keep-kind",
        action="append",
        default=[],
        metavar="KIND",
        help="kind of pairs that are kept whatever their scores",
    )
    parser.add_argument(
        "--cache", type=typed, metavar="FOLDER", help="of the vectors (default: RECORDS.vectors beside the records)"
    )
    parser.add_argument("--batch", type=whole(1), default=32, help="pictures at a time (default %(default)s)")
    parser.add_argument(
        "--workers", type=whole(1, 1024), default=2, help="threads a rank that read pictures (default %(default)s)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: %(default)s"
    )
    add_unreadable(parser)
    add_ranks(parser)
    parser.set_defaults(work=run)


def run(arguments: argparse.Namespace) -> int:
    """Filters, on every rank; 0."""
    start_ranks(arguments.typed, arguments.ranks)

    from ....basics.dist import naming_lost_ranks, world_from_environment
    from . import command
    from .thresholds import Threshold, read_thresholds

    general = Threshold(arguments.clip_above, arguments.dino_below)
    records = arguments.records
    wanted = command.Wanted(
        records,
        Roots(arguments.images),
        arguments.output,
        arguments.cache or records.with_name(f"{records.stem}.vectors"),
        {"clip": located(arguments.clip), "dino": located(arguments.dino)},
        read_thresholds(general, arguments.threshold, arguments.keep_kind),
        arguments.dtype,
        arguments.batch,
        arguments.workers,
        arguments.max_unreadable,
    )
    world = world_from_environment()
    if world.size == 1:
        result = command.run(wanted, world)
    else:
        from .... import engine

        try:
            engine.start(world)
            with naming_lost_ranks():
                result = command.run(wanted, world)
        finally:
            engine.stop()
    if world.is_main:
        pairs, out = result["pairs"], arguments.output
        print(
            f"{pairs['kept']} of {pairs['scored']} pairs kept, {pairs['unreadable']} unreadable; {result['encoded']} pictures "
            "encoded"
        )
        print(f"{out}: {command.KEPT_FILE}, the others in rejected.jsonl, README.md with scores.png and borderline.png")
        images = " ".join(f"--images {folder}" for folder in arguments.images)
        print(f"next: svco data build {out / command.KEPT_FILE} {images} -o shards")
    return 0

"""The options of ``svco data``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ...basics.errors import UserError
from ...basics.intervals import real, whole
from ...basics.progress import shown
from ...basics.shipped import typed
from ...recipe.config import Config, CorruptConfig, CorruptKind
from . import build_options, inspect_options, verify_options
from .common_options import add_images, add_shard_options
from .filter import options as filter_options
from .rewrite import options as rewrite_options
from .sources.table import SOURCES
from .view import options as view_options

if TYPE_CHECKING:
    Tools = argparse._SubParsersAction[argparse.ArgumentParser]


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the tools of ``data``."""
    parser.description = (
        "Imports, filters, rewrites and shows pairs; builds, corrupts, inspects and verifies shards of them."
    )
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")

    _add_import(tools)
    filter_options.add(tools)
    rewrite_options.add(tools)

    build_options.add(tools)
    _add_corrupt(tools)
    view_options.add(tools)

    inspect_options.add(tools)
    verify_options.add(tools)


def _add_import(tools: Tools) -> None:
    importer = tools.add_parser(
        "import",
        help="a released data set to records (JSONL)",
        description="A released data set to records, one JSON object a line. svco data import SOURCE --help says more.",
    )
    sources = importer.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, source in SOURCES.items():
        parser = sources.add_parser(name, help=source.does, description=f"Imports {source.does}.")
        parser.add_argument("path", type=typed, help=source.takes)
        add_images(parser, " (default: the one given, or that of the file)")
        parser.add_argument("-o", "--output", type=typed, default=Path("records.jsonl"), help="default: %(default)s")
        parser.add_argument(
            "--max-missing", type=real("[0, 1]"), default=0.0, help="share of pairs that may lack an image (default 0)"
        )
        parser.add_argument(
            "--licence",
            default="",
            help=f"of the samples, where you know it (default: as the source states it: {source.licence})",
        )
        parser.add_argument("--name", default="", help=f"what the records call their source (default: {name})")
        for option, about in source.options.items():
            parser.add_argument(f"--{option}", default=about.default, choices=about.choices, help=about.help)
    importer.set_defaults(work=_import)


def _add_corrupt(tools: Tools) -> None:
    corrupter = tools.add_parser(
        "corrupt",
        help="shards to pairs of an image with its right answer and the same image corrupted with the wrong one",
        description="Pairs as mDPO and others train on them: side 0 is a side of the pair as it is, side 1 its image corrupted "
        "with the other side's answer. Keys, questions and contrast types stay.",
    )
    corrupter.add_argument("shards", nargs="+", help="paths, brace patterns, directories or URLs")
    corrupter.add_argument("--side", type=whole(0, 1), default=0, help="the side that is kept (default 0)")
    corrupter.add_argument("--kind", choices=get_args(CorruptKind), default="crop", help="default: %(default)s")
    corrupter.add_argument(
        "--scale",
        type=real("(0, 1]"),
        nargs=2,
        default=(0.01, 0.2),
        metavar=("LEAST", "MOST"),
        help="crop: share of the area kept",
    )
    corrupter.add_argument(
        "--step", type=whole(0, 999), default=500, help="noise: step of the diffusion (default %(default)s)"
    )
    corrupter.add_argument("--seed", type=whole(), default=0, help="another number, other crops and noise")
    add_shard_options(corrupter)
    corrupter.set_defaults(work=_corrupt)


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the tools; its exit code."""
    return arguments.work(arguments)


def _import(arguments: argparse.Namespace) -> int:
    from .images import Roots, missing_lines
    from .importing import import_records
    from .sources.raw import Raw

    source = SOURCES[arguments.source]
    given, output = arguments.path, arguments.output
    if not given.exists():
        raise UserError(f"There is no {given}. {source.name} takes {source.takes}.")
    folders = arguments.images or [given if given.is_dir() else given.parent]
    options = {name: getattr(arguments, name) for name in source.options}
    made = output.with_name(f"{output.stem}.images")
    raw = Raw(source, given, Roots(folders), made, options, arguments.licence, arguments.name)
    done = import_records(raw, output, arguments.max_missing, shown(True))
    print(
        f"{done.kept} of {done.records} pairs written to {output}. {missing_lines(done.missing, source.origins)}".rstrip()
    )
    for kind, count in sorted(done.types.items()):
        print(f"  {kind:<10}{count:>9}")
    for reason, count in sorted(raw.left_out.items()):
        print(f"left out: {count} × {reason}")
    for note in raw.notes:
        print(note)
    images = " ".join(f"--images {folder}" for folder in raw.roots.folders)
    if done.unwritten:
        print(f"{done.unwritten} have no question yet: svco data rewrite {output} makes them")
    print(
        f"next: svco data filter {output} {images} --clip MODEL --dino MODEL, or svco data build {output} {images} -o shards"
    )
    return 0


def _corrupt(arguments: argparse.Namespace) -> int:
    from ...recipe.limits import check
    from .corrupt import corrupt_shards

    config = CorruptConfig(arguments.kind, tuple(arguments.scale), arguments.step, arguments.seed)
    check(Config(corrupt=config))
    manifest = corrupt_shards(
        arguments.shards,
        arguments.output,
        config,
        side=arguments.side,
        pairs_per_shard=arguments.pairs_per_shard,
        max_unreadable=arguments.max_unreadable,
        progress=shown(True),
    )
    for split, count in manifest["pairs"].items():
        print(f"{split:<8}{count:>9} pairs")
    for reason in manifest["left_out"]["unreadable"]:
        print(f"left out: {reason}")
    print(f"next: svco data verify {arguments.output}")
    return 0

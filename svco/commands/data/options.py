"""The options of ``svco data``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ...basics.errors import BadSample, UserError
from ...basics.intervals import real, whole
from ...basics.progress import shown
from ...basics.shipped import typed
from ...recipe.config import Config, CorruptConfig, CorruptKind, DataConfig
from .common_options import add_images, add_unreadable
from .filter import options as filter_options
from .rewrite import options as rewrite_options
from .sources.table import SOURCES
from .target import destination
from .view import options as view_options

if TYPE_CHECKING:
    Tools = argparse._SubParsersAction[argparse.ArgumentParser]


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the tools of ``data``."""
    parser.description = "Imports, filters, rewrites and shows pairs; builds, corrupts and verifies shards of them."
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")

    _add_import(tools)
    filter_options.add(tools)
    rewrite_options.add(tools)

    builder = tools.add_parser("build", help="records to shards, split without an image in two splits")
    builder.add_argument("records", type=typed, help="records.jsonl")
    add_images(builder)
    builder.add_argument("--seed", type=whole(), default=0)
    builder.add_argument(
        "--exclude", type=typed, metavar="CHOICES", help="leave out what was rejected in a gallery (svco data view)"
    )
    builder.add_argument("--val", type=real("[0, 1)"), default=0.02, help="share of validation pairs (default 0.02)")
    builder.add_argument("--heldout", type=real("[0, 1)"), default=0.02, help="share of held-out pairs (default 0.02)")
    _add_shard_options(builder)
    builder.set_defaults(work=_build)

    _add_corrupt(tools)
    view_options.add(tools)

    verifier = tools.add_parser("verify", help="read every byte of shards; exit code 1 when something is wrong")
    verifier.add_argument("shards", nargs="+", help="paths, brace patterns, directories or URLs")
    verifier.add_argument(
        "--base", help="folder or hub id of a base model: list all that a run with it would refuse, by name and reason"
    )
    verifier.add_argument(
        "--max-text-tokens",
        type=whole(2),
        default=DataConfig.max_text_tokens,
        help="with --base: the run's data.max_text_tokens (default %(default)s)",
    )
    verifier.add_argument("--paper-compat", action="store_true", help="with --base: the run's model.paper_compat")
    verifier.add_argument(
        "--equal-pictures", action="store_true", help="the run's data.equal_pictures: take pairs whose pictures are one"
    )
    verifier.set_defaults(work=_verify)


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
    _add_shard_options(corrupter)
    corrupter.set_defaults(work=_corrupt)


def _add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Of the tools that write shards."""
    parser.add_argument(
        "-o",
        "--output",
        type=destination,
        required=True,
        help="empty folder for the shards, or the URL of one (s3://, gs://, hf://)",
    )
    parser.add_argument("--pairs-per-shard", type=whole(1), default=512)
    add_unreadable(parser)


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


def _name(no_contrast: list[BadSample]) -> None:
    """A line on each of the first pairs that are left out because they are no contrast, and how many there are."""
    for error in no_contrast[:20]:
        print(f"left out ({error.reason}): {error}")
    if len(no_contrast) > 20:
        print(f"left out: {len(no_contrast)} such pairs in all")


def _build(arguments: argparse.Namespace) -> int:
    from .build import BuildPlan, build
    from .choices import without_rejects
    from .images import Roots
    from .records import read_records
    from .target import check

    check(arguments.output)
    plan = BuildPlan(
        arguments.seed, arguments.val, arguments.heldout, arguments.pairs_per_shard, arguments.max_unreadable
    )
    no_contrast: list[BadSample] = []
    records, strangers = read_records(arguments.records, no_contrast), 0
    rejected = len(records)
    if arguments.exclude:
        records, strangers = without_rejects(records, arguments.exclude)
    rejected -= len(records)
    manifest = build(records, Roots(arguments.images), arguments.output, plan, shown(True), no_contrast, rejected)
    for split, count in manifest["pairs"].items():
        print(f"{split:<8}{count:>9} pairs")
    left = manifest["left_out"]
    print(
        f"left out: {left['unreadable']} unreadable, {left['duplicate']} repeated, {left['no_contrast']} no contrast, "
        f"{rejected} rejected"
        + (f"; {strangers} more were rejected and are not among the records" if strangers else "")
    )
    _name(no_contrast)
    print(f"next: svco data verify {arguments.output}")
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


def _verify(arguments: argparse.Namespace) -> int:
    from .verify import verify

    family = None
    if arguments.base is not None:
        from ...basics.shipped import located
        from ...families import load_family

        family = load_family(located(arguments.base), arguments.max_text_tokens, arguments.paper_compat)
    found = verify(arguments.shards, None, shown(True), family, arguments.equal_pictures)
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
        + (f", and a run with {arguments.base} takes every pair" if family else "")
    )
    return 1 if found.problems else 0

"""The options of ``svco export``."""

from __future__ import annotations

import argparse

from ...basics.errors import UserError
from ...basics.progress import shown
from ...basics.shipped import located, typed


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``export`` takes."""
    parser.description = (
        "Writes what a run trained for plain transformers and peft: finished, or stopped and with a valid checkpoint. Also "
        "converts a PEFT adapter or a model between the names of transformers 4 and 5."
    )
    parser.add_argument(
        "source",
        type=typed,
        help="a run folder, a checkpoint folder of one, a PEFT adapter folder or a model folder",
    )
    parser.add_argument("--to", type=typed, help="new or empty folder (default: export/FORMAT in the run)")
    parser.add_argument(
        "--format",
        choices=("adapter", "merged", "full"),
        help="adapter: PEFT; merged: the adapter in its base; full: a fully tuned model (default: adapter of LoRA, else full)",
    )
    parser.add_argument(
        "--checkpoint",
        help="step-N, latest or best (by checkpoint.keep_best) of a run (default: its final weights, or its newest valid "
        "checkpoint)",
    )
    parser.add_argument(
        "--names", choices=("4", "5"), help="names of transformers 4 or 5 (default: the base's own; of an adapter 5)"
    )
    parser.add_argument("--shard-size", default="5GB", help="largest weight file (default %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: the run's)")
    parser.add_argument(
        "--base", type=located, help="where the base model is now, folder or hub id (default: where the run had it)"
    )
    parser.add_argument(
        "--base-name", help="what to call the base in public (default: its hub id or its folder's name)"
    )
    parser.add_argument(
        "--other-base", action="store_true", help="the base is deliberately another than the one that was trained on"
    )
    parser.add_argument(
        "--eval",
        action="append",
        default=[],
        type=typed,
        dest="evaluations",
        metavar="DIR",
        help="--out of an svco eval of these weights: its figures go into the card; may be given again",
    )
    parser.add_argument(
        "--push",
        metavar="REPO",
        help="also upload it to the Hugging Face hub as REPO (organisation/name), with the token in HF_TOKEN; an export that is "
        "given as SOURCE goes as it is",
    )
    parser.add_argument("--public", action="store_true", help="with --push: anybody may read it (default: private)")


def run(arguments: argparse.Namespace) -> int:
    """Exports; 0."""
    from ...export import Wanted, destination, export, is_export, push

    to = destination(arguments.push, arguments.public) if arguments.push else None
    if arguments.public and to is None:
        raise UserError("--public goes with --push REPO.")
    if to and is_export(arguments.source) and not _changing(arguments):
        print(f"pushed to {push(arguments.source, to)}")
        return 0
    wanted = Wanted(
        arguments.source,
        arguments.to,
        arguments.format,
        arguments.checkpoint,
        arguments.names,
        arguments.shard_size,
        arguments.dtype,
        arguments.base,
        arguments.base_name,
        arguments.other_base,
        tuple(arguments.evaluations),
    )
    target = export(wanted, shown(True))
    card = "; its README.md says what it is and how to load it" if (target / "README.md").is_file() else ""
    print(f"exported to {target}{card}")
    if to:
        print(f"pushed to {push(target, to)}")
    return 0


def _changing(arguments: argparse.Namespace) -> bool:
    """Whether anything of an export is to be another than it is."""
    asked = ("to", "format", "checkpoint", "names", "dtype", "base", "base_name", "other_base", "evaluations")
    return any(getattr(arguments, name) for name in asked)

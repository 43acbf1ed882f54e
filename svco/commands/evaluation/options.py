"""The options of ``svco eval``, and of ``launchers/eval.py`` for launchers that start a file."""

from __future__ import annotations

import argparse
from typing import get_args

from ...basics import collector
from ...basics.intervals import whole
from ...basics.ranks import add_ranks, start_ranks
from ...basics.shipped import at_home, typed
from ...recipe.config import AllowOverlap, CorruptKind, Dtype
from .quantise import add_quantise


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``eval`` takes."""
    parser.description = (
        "Scores any base, with any PEFT LoRA adapter, on shards and benchmarks: figures with errors, and paired tests "
        "against other evaluations. Each rank holds the whole model and scores its share."
    )
    parser.add_argument("--base", required=True, help="folder or hub id of the base, or of a whole tuned model")
    parser.add_argument("--adapter", type=at_home, metavar="DIR", help="PEFT LoRA adapter folder (default: none)")
    parser.add_argument(
        "--other-base", action="store_true", help="the base is deliberately another than the adapter was trained on"
    )
    parser.add_argument("--out", type=typed, required=True, metavar="DIR", help="folder for the results")
    _add_sets(parser)
    parser.add_argument(
        "--pairs", type=whole(), default=0, help="score at most this many pairs of each set (default: all)"
    )
    parser.add_argument(
        "--corrupt",
        choices=get_args(CorruptKind),
        help="also score the corrupt view: the own image, corrupted (default: not)",
    )
    parser.add_argument(
        "--generate",
        type=whole(),
        default=0,
        metavar="N",
        help="let the model answer the questions of the first N pairs of each set, under both images",
    )
    parser.add_argument(
        "--generate-on", action="append", default=[], metavar="NAME", help="of this set alone; may be given again"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole(1, 1_000_000),
        help="tokens of an answer (default: 64; 1,024 of one that is judged)",
    )
    parser.add_argument(
        "--against",
        type=typed,
        nargs="+",
        default=[],
        metavar="DIR",
        help="--out of other evaluations: paired differences with errors and tests",
    )
    parser.add_argument(
        "--paper-compat",
        action="store_true",
        help="as the S-VCO authors evaluate: float16 on a GPU, and LLaVA-1.5's prompts end with an end-of-sequence token",
    )
    add_ranks(parser)
    _add_effort(parser)


def _add_sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="sets",
        metavar="NAME=SHARDS",
        help="a set to score: a path, brace pattern, glob, directory (of one with splits its heldout-*) or URL of shards; may be "
        "given again",
    )
    parser.add_argument(
        "--allow-overlap",
        choices=get_args(AllowOverlap),
        default="none",
        help="what a set may share with the pairs that the model was trained on, which its run's folder tells: none (default), "
        "keys of shards that were numbered alike, or all",
    )
    add_benchmarks(parser)
    parser.add_argument(
        "--apart",
        action="store_true",
        help="each set and benchmark into a folder of its own in --out; what the same model finished there is left alone, so "
        "that a command that was stopped goes on",
    )


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """Adds ``--benchmark`` and ``--benchmarks``, which ``chosen_benchmarks`` reads."""
    parser.add_argument(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a benchmark and the folder of its official files; may be given again",
    )
    parser.add_argument(
        "--benchmarks", type=typed, metavar="DIR", help="every benchmark that has a folder of its name in DIR"
    )


def _add_effort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", default="auto", choices=get_args(Dtype), help="of the weights")
    add_quantise(parser)
    parser.add_argument("--attention", default="auto", help="auto, flash, varlen or sdpa (default %(default)s)")
    parser.add_argument("--max-text-tokens", type=whole(2), default=128, help="as in training (default %(default)s)")
    parser.add_argument(
        "--tokens-per-batch",
        type=whole(1),
        default=16384,
        help="of a forward pass on a rank; lower it when memory runs out",
    )
    parser.add_argument(
        "--answers-per-batch", type=whole(1), default=16, help="generated side by side (default %(default)s)"
    )
    parser.add_argument(
        "--workers", type=whole(0, 1024), default=1, help="loader processes a rank (default %(default)s)"
    )
    parser.add_argument(
        "--cache", type=at_home, default="", metavar="DIR", help="for indices and lengths (default: ~/.cache/svco)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, on every rank; 0."""
    start_ranks(arguments.typed, arguments.ranks)

    from ...basics.dist import naming_lost_ranks, world_from_environment

    with collector.resting():
        from . import command

        world = world_from_environment()
        wanted = command.read_arguments(arguments)
        if world.size == 1:
            command.run(wanted, world)
            return 0
        from ... import engine

        try:
            engine.start(world)
            with naming_lost_ranks():
                command.run(wanted, world)
        finally:
            engine.stop()
    return 0

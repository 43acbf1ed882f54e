"""The options of ``svco bench``, and of ``launchers/bench.py`` for launchers that start a file."""

from __future__ import annotations

import argparse
import sys

from ...basics.intervals import real, whole
from ...basics.ranks import add_ranks, start_ranks
from ...basics.shipped import at_home


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``bench`` takes."""
    parser.description = (
        "What each idea of the fast path is worth: counted at the true shape, timed at a cut one, rows in turn."
    )
    parser.add_argument(
        "--ds", metavar="FILE", default="none", help="DeepSpeed JSON, or 'none' (default): one process without"
    )
    parser.add_argument(
        "--shape", default="tiny", help="tiny, llava15-7b, llava15-13b or llava16-34b (default: %(default)s)"
    )
    parser.add_argument("--layers", type=whole(0, 1000), default=0, help="decoder layers of the timed models (0: all)")
    parser.add_argument(
        "--scale", type=real("(0, 16]"), default=1.0, help="factor on widths and heads of the timed models"
    )
    parser.add_argument("--vocab", type=whole(0, 10_000_000), default=0, help="token ids of the timed models (0: all)")
    parser.add_argument("--objective", default="svco", help="svco (the authors' step), dpo (TRL's), or any other")
    parser.add_argument("--tune", default="lora", choices=("lora", "full", "both"), help="what is trained")
    parser.add_argument("--pairs", type=whole(1, 1_000_000), default=1, help="pairs a step and rank")
    parser.add_argument("--repetitions", type=whole(1, 1_000_000), default=5, help="timed steps a row")
    parser.add_argument("--rows", default="", help="comma-separated rows of the ladder (default: all)")
    _instead(parser)
    parser.add_argument("--out", type=at_home, metavar="STEM", help="write STEM.json, STEM.md and STEM.png")
    add_ranks(parser, ", with --ds")


def _instead(parser: argparse.ArgumentParser) -> None:
    """What else than the ladder can be measured."""
    parser.add_argument(
        "--data", metavar="SHARDS", help="instead: pairs/s of the loader against what the step consumes"
    )
    parser.add_argument(
        "--head", action="store_true", help="instead: the log-prob head against plain logits and torch's own"
    )
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="instead: pairs scored packed, as svco eval does, against one by one",
    )
    parser.add_argument("--peer", choices=("trl", "swift"), help="instead: another trainer against ours, step by step")
    parser.add_argument(
        "--peer-python",
        metavar="FILE",
        default=sys.executable,
        help="the Python of the environment in which the peer is installed (default: this one)",
    )
    parser.add_argument(
        "--scaling",
        metavar="1,2,4",
        help="instead, without a launcher: a launch for each number, and how speed scales with it",
    )
    parser.add_argument(
        "--launch",
        default="deepspeed --num_accelerators {n}",
        help="how --scaling launches: with a hostfile 'deepspeed --hostfile H --num_nodes {n}', under SLURM "
        "'srun --nodes {n} --ntasks-per-node 8 python' (default: %(default)s)",
    )
    parser.add_argument("--one-point", action="store_true", help=argparse.SUPPRESS)  # one of those launches
    parser.add_argument(
        "--validate-plan",
        action="store_true",
        help="instead: the figures of svco plan against what is counted and held here",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs one benchmark, on every rank; 0."""
    from ...recipe.ds_config import read_ds_config

    ds = None if arguments.ds == "none" else read_ds_config(arguments.ds)
    if arguments.scaling:
        from .commands import run_scaling

        run_scaling(arguments)
        return 0
    start_ranks(arguments.typed, arguments.ranks, several=ds is not None)

    from ... import engine
    from ...basics.dist import naming_lost_ranks, world_from_environment
    from . import commands

    try:
        if ds is not None:
            engine.start(world_from_environment())
        with naming_lost_ranks():
            commands.run(arguments, ds, world_from_environment())
    finally:
        engine.stop()
    return 0

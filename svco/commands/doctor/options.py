"""The options of ``svco doctor``, and of ``launchers/doctor.py`` for launchers that start a file."""

from __future__ import annotations

import argparse

from ...basics.errors import UserError
from ...basics.intervals import real
from ...basics.ranks import add_ranks, start_ranks


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``doctor`` takes."""
    parser.description = (
        "Launched like the run it is for: the same launcher, --ds, --recipe and section.key=value. One line a check, with a "
        "remedy for each that fails; exit code 1 when one does."
    )
    parser.add_argument("--ds", metavar="FILE", default="none", help="DeepSpeed JSON of the run, or 'none' (default)")
    parser.add_argument(
        "--recipe", metavar="FILE", default="tiny", help="recipe YAML, a file or a name (default: %(default)s)"
    )
    add_ranks(parser, ", with --ds")
    parser.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable that every rank must have; repeatable",
    )
    parser.add_argument(
        "--timeout",
        type=real("[0.1, 86400]"),
        default=60.0,
        help="seconds to wait for ranks and network (default: %(default)s)",
    )
    parser.add_argument(
        "--megabytes",
        type=real("(0, 65536]"),
        default=64.0,
        help="largest collective to time, use 1024 on GPUs (default: %(default)s)",
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")


def run(arguments: argparse.Namespace) -> int:
    """Examines, on every rank; 1 when a check fails."""
    from ...recipe.ds_config import read_ds_config
    from ...recipe.read import load_recipe

    if bad := [pair for pair in arguments.env if "=" not in pair]:
        raise UserError(f"--env {bad[0]}: write NAME=VALUE, e.g. --env HF_HUB_OFFLINE=1.")
    config = load_recipe(arguments.recipe, arguments.overrides)
    ds = None if arguments.ds == "none" else read_ds_config(arguments.ds)
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    start_ranks(arguments.typed, arguments.ranks, several=ds is not None)

    from ...basics.dist import world_from_environment
    from .examine import examine

    return examine(config, ds, world_from_environment(), environment, arguments.timeout, arguments.megabytes)

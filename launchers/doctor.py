"""Looks at every rank's machine before a run does: ``deepspeed --hostfile H launchers/doctor.py --ds … --recipe …``."""

from __future__ import annotations

import argparse
from pathlib import Path

from svco.basics.errors import UserError, exit_codes

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "tiny.yaml"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deepspeed launchers/doctor.py",
        description="Launched like the run it is for: the same launcher, --ds, --recipe and section.key=value. One line a check, "
        "with a remedy for each that fails; exit code 1 when one does.",
    )
    parser.add_argument("--ds", metavar="FILE", default="none", help="DeepSpeed JSON of the run, or 'none' (default)")
    parser.add_argument("--recipe", metavar="FILE", default=DEFAULT_RECIPE, help="recipe YAML (default: %(default)s)")
    parser.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable that every rank must have; repeatable",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds to wait for ranks and network (default: %(default)s)"
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=64.0,
        help="largest collective to time, use 1024 on GPUs (default: %(default)s)",
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # given by the deepspeed launcher
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse()
    from svco.basics.dist import world_from_environment
    from svco.commands.doctor.examine import examine
    from svco.recipe.ds_config import read_ds_config
    from svco.recipe.read import load_recipe

    if bad := [pair for pair in arguments.env if "=" not in pair]:
        raise UserError(f"--env {bad[0]}: write NAME=VALUE, e.g. --env HF_HUB_OFFLINE=1.")
    config = load_recipe(arguments.recipe, arguments.overrides)
    ds = None if arguments.ds == "none" else read_ds_config(arguments.ds)
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    return examine(config, ds, world_from_environment(), environment, arguments.timeout, arguments.megabytes)


if __name__ == "__main__":
    with exit_codes():
        raise SystemExit(main())

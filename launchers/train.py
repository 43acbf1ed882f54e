"""Trains a recipe: ``deepspeed launchers/train.py --ds ds_configs/zero3.json [--recipe FILE] [section.key=value ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from svco.basics.errors import UserError, exit_codes

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "tiny.yaml"


def parse() -> argparse.Namespace:
    from svco.recipe.read import help_text

    parser = argparse.ArgumentParser(
        prog="deepspeed launchers/train.py",
        description="Fine-tune a vision-language model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Every key of a recipe, with its default:\n{help_text()}",
    )
    parser.add_argument(
        "--ds", metavar="FILE", help="DeepSpeed JSON (ds_configs/), or 'none': one process without DeepSpeed"
    )
    parser.add_argument("--recipe", metavar="FILE", default=DEFAULT_RECIPE, help="recipe YAML (default: %(default)s)")
    parser.add_argument("--resume", metavar="WHAT", help="same as run.resume=WHAT: auto, none or a checkpoint folder")
    parser.add_argument(
        "--time-limit",
        metavar="TIME",
        help="same as run.time_limit=TIME: save and exit with code 75 before it, e.g. 3:55:00",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe, derived values and DeepSpeed JSON"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # given by the deepspeed launcher
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse()
    from svco.recipe.ds_config import read_ds_config
    from svco.recipe.read import load_recipe

    flags = {"run.resume": arguments.resume, "run.time_limit": arguments.time_limit}
    overrides = [*arguments.overrides, *(f"{key}={value}" for key, value in flags.items() if value)]
    config = load_recipe(arguments.recipe, overrides)
    if not arguments.ds:
        raise UserError(
            "Missing --ds: say which DeepSpeed config to run with, e.g. --ds ds_configs/zero3.json, or --ds none "
            "for one process without DeepSpeed."
        )
    ds = None if arguments.ds == "none" else read_ds_config(arguments.ds)

    from svco.run.start import Launch, start

    start(Launch(config, Path(arguments.recipe).stem, ds, arguments.ds, arguments.dry_run, tuple(sys.argv)))


if __name__ == "__main__":
    with exit_codes():
        main()

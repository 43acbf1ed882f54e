"""The options of ``svco train``, and of ``launchers/train.py`` for launchers that start a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..basics import collector
from ..basics.errors import UserError
from ..basics.ranks import add_ranks, start_ranks


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``train`` takes."""
    from ..recipe.read import help_text

    parser.description = "Fine-tune a vision-language model."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Every key of a recipe, with its default:\n{help_text()}"
    parser.add_argument(
        "--ds",
        metavar="FILE",
        help="DeepSpeed JSON, a file or the name of one that comes with svco (zero2, zero3, …), or 'none': one process without "
        "DeepSpeed",
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        default="tiny",
        help="recipe YAML, a file or the name of one that comes with svco (default: %(default)s, the embedded demo)",
    )
    add_ranks(parser, ", with --ds")
    parser.add_argument("--resume", metavar="WHAT", help="same as run.resume=WHAT: auto, none or a checkpoint folder")
    parser.add_argument(
        "--time-limit",
        metavar="TIME",
        help="same as run.time_limit=TIME: save and exit with code 75 before it, e.g. 3:55:00",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe, derived values and DeepSpeed JSON"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")


def run(arguments: argparse.Namespace) -> int:
    """Trains, on every rank; 0. Reads recipe and DeepSpeed JSON before anything is started: their mistakes are told at once."""
    from ..recipe.ds_config import read_ds_config
    from ..recipe.read import load_recipe

    flags = {"run.resume": arguments.resume, "run.time_limit": arguments.time_limit}
    overrides = [*arguments.overrides, *(f"{key}={value}" for key, value in flags.items() if value)]
    config = load_recipe(arguments.recipe, overrides)
    if not arguments.ds:
        raise UserError(
            "Missing --ds: say which DeepSpeed config to run with, e.g. --ds ds_configs/zero3.json, or --ds none "
            "for one process without DeepSpeed."
        )
    ds = None if arguments.ds == "none" else read_ds_config(arguments.ds)
    if ds is None and (arguments.ranks or 1) > 1:
        raise UserError(f"--ds none runs one process, not --ranks {arguments.ranks}. Give --ds ds_configs/zero3.json.")
    start_ranks(arguments.typed, arguments.ranks, several=ds is not None)

    from .launch import Launch
    from .start import start

    with collector.resting():
        start(Launch(config, Path(arguments.recipe).stem, ds, arguments.ds, arguments.dry_run, arguments.typed))
    return 0

"""The options of ``svco plan``."""

from __future__ import annotations

import argparse

from ...basics.intervals import real, whole
from ...basics.shipped import typed

_TOKENS = real("[1, 1000000]")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``plan`` takes."""
    parser.description = "What a recipe needs and takes on a machine, in seconds and without weights or GPUs."
    parser.add_argument("recipe", help="recipe YAML, a file or the name of one that comes with svco")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")
    parser.add_argument(
        "--ds",
        metavar="FILE",
        default="all",
        help="DeepSpeed JSON, a file or a name; all (default): compare those that come with svco",
    )
    parser.add_argument("--gpus", type=whole(1, 1024), default=8, help="GPUs a node (default %(default)s)")
    parser.add_argument("--nodes", type=whole(1, 1_000_000), default=1, help="nodes (default %(default)s)")
    parser.add_argument(
        "--gpu", default="h100-80g", help="kind of GPU (default %(default)s); an unknown one lists them"
    )
    parser.add_argument(
        "--interconnect", default="400gb", help="network of a node: 100gb, 400gb, 8x400gb (default %(default)s)"
    )
    parser.add_argument("--prompt", type=_TOKENS, default=40, help="where shards are not here: text tokens of a prompt")
    parser.add_argument("--response", type=_TOKENS, default=60, help="the same: tokens of a response")
    parser.add_argument(
        "--image-tokens", type=real("[0, 1000000]"), default=0, help="the same: tokens of an image (0: of 640 × 480)"
    )
    parser.add_argument("--pairs", type=whole(1, 10**12), default=11_000, help="the same: training pairs")
    parser.add_argument(
        "--calibration", metavar="FILE", help="*_calibration.json of launchers/gpu_check.py, or the folder of a run"
    )
    parser.add_argument("--json", type=typed, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--figure", type=typed, metavar="FILE", help="draw strong and weak scaling to 1,024 GPUs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan; 1 when nothing fits."""
    from . import command

    return command.run(arguments)

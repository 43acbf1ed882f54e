"""``--quantise`` of the commands that look at a model."""

from __future__ import annotations

import argparse
from typing import get_args

from ...recipe.config import Quantise


def add_quantise(parser: argparse.ArgumentParser) -> None:
    """Adds ``--quantise``."""
    parser.add_argument(
        "--quantise",
        default="auto",
        choices=("auto", *get_args(Quantise)),
        help="how the base's matrices are held: as the adapter was trained, if its identity.json tells (auto, the default), in "
        "full (none), or in 4 bits (nf4)",
    )


def asked_quantise(arguments: argparse.Namespace) -> dict[str, str]:
    """``--quantise`` as one of a model's options; none where it is not asked for: evaluations that are there are known by
    theirs."""
    return {} if arguments.quantise == "auto" else {"quantise": arguments.quantise}

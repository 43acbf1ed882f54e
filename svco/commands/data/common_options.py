"""Options that several of the tools have."""

from __future__ import annotations

import argparse

from ...basics.intervals import real
from ...basics.shipped import typed


def add_images(parser: argparse.ArgumentParser, otherwise: str = "") -> None:
    """Required, unless ``otherwise`` says what holds of a command line without."""
    parser.add_argument(
        "--images",
        type=typed,
        action="append",
        required=not otherwise,
        default=[],
        metavar="FOLDER",
        help=f"folder that the image paths are relative to; several may be given, the first that holds a path counts{otherwise}",
    )


def add_unreadable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-unreadable",
        type=real("[0, 1]"),
        default=0.0,
        help="share of pairs that may be bad and are left out (default 0)",
    )

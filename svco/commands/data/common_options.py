"""Options that several of the tools have."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_images(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        action="append",
        required=required,
        metavar="FOLDER",
        help="folder that the image paths are relative to; several may be given, the first that holds a path counts"
        + ("" if required else " (default: the one given, or that of the file)"),
    )


def add_unreadable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-unreadable", type=float, default=0.0, help="share of pairs that may be bad and are left out (default 0)"
    )

"""Options that several of the tools have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...basics.intervals import real, whole
from ...basics.shipped import typed
from ...data.near_bits import MOST_NEAR, NEAR
from ...recipe.config import DataConfig
from .target import destination

if TYPE_CHECKING:
    from ...families import Family


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


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Of the tools that write shards."""
    parser.add_argument(
        "-o",
        "--output",
        type=destination,
        required=True,
        help="empty folder for the shards, or the URL of one (s3://, gs://, hf://)",
    )
    parser.add_argument("--pairs-per-shard", type=whole(1), default=512)
    add_unreadable(parser)


def add_near_duplicates(parser: argparse.ArgumentParser, meaning: str, default: int = NEAR) -> None:
    """``meaning``: what follows from two pictures that look alike."""
    parser.add_argument(
        "--near-duplicates",
        type=_bits,
        default=default,
        metavar="BITS",
        help="of 64 in which the hashes (pHash and dHash) of two pictures may differ that look alike, mirrored or not: "
        f"{meaning}; off: only pictures of the same pixels",
    )


def _bits(text: str) -> int | None:
    return None if text == "off" else whole(0, MOST_NEAR)(text)


def add_base(parser: argparse.ArgumentParser, does: str) -> None:
    """The base model that ``load_base`` loads the family of."""
    parser.add_argument("--base", help=f"folder or hub id of a base model: {does}")
    parser.add_argument(
        "--max-text-tokens",
        type=whole(2),
        default=DataConfig.max_text_tokens,
        help="with --base: the run's data.max_text_tokens (default %(default)s)",
    )
    parser.add_argument("--paper-compat", action="store_true", help="with --base: the run's model.paper_compat")


def load_base(arguments: argparse.Namespace) -> Family | None:
    """The family of the base that ``arguments`` name, or None where they name none."""
    if arguments.base is None:
        return None
    from ...basics.shipped import located
    from ...families import load_family

    return load_family(located(arguments.base), arguments.max_text_tokens, arguments.paper_compat)

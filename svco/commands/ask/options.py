"""The options of ``svco ask``; what does the work is imported when it runs."""

from __future__ import annotations

import argparse
from typing import get_args

from ...basics.intervals import whole
from ...basics.shipped import typed
from ...recipe.config import Dtype
from ..evaluation.quantise import add_quantise


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``ask`` takes."""
    parser.description = (
        "Lets a base model and, beside it, an adapter on it answer a question about an image, or about each of two; says how "
        "likely each answer is with its own image, with the other one and with none, and colours its tokens by what the image "
        "says about them (match − blind: blue for, orange against). The base is loaded once."
    )
    parser.add_argument("question", help="what is asked, in quotes")
    parser.add_argument("--base", required=True, help="base model, folder or hub id; a fully tuned model as well")
    parser.add_argument("--adapter", type=typed, metavar="FOLDER", help="PEFT LoRA adapter: answers beside its base")
    parser.add_argument(
        "--other-base", action="store_true", help="the base is deliberately another than the adapter was trained on"
    )
    parser.add_argument(
        "--image",
        dest="images",
        action="append",
        required=True,
        type=typed,
        metavar="FILE",
        help="an image; given twice, each is asked about and each is the other's contradiction",
    )
    parser.add_argument(
        "--max-new-tokens", type=whole(1, 4096), default=64, help="tokens of an answer at most (default %(default)s)"
    )
    parser.add_argument("--html", type=typed, metavar="FILE", help="write the answers as a page, too")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="auto")
    add_quantise(parser)
    parser.add_argument("--attention", choices=("auto", "flash", "varlen", "sdpa"), default="auto")


def run(arguments: argparse.Namespace) -> int:
    """Asks; 0."""
    from . import command

    return command.run(arguments)

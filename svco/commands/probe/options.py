"""The options of ``svco probe``; what does the work is imported when it runs."""

from __future__ import annotations

import argparse
from typing import get_args

from ...basics.intervals import whole
from ...basics.shipped import typed
from ...recipe.config import CorruptKind, Dtype
from ..evaluation.quantise import add_quantise


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``probe`` takes."""
    parser.description = (
        "Scores the responses of pairs under every view, by a base model and, beside it, by an adapter on it. Writes a table, a "
        "figure and one HTML page that colours every token by what the image says about it."
    )
    parser.add_argument("--base", required=True, help="base model, folder or hub id; a fully tuned model as well")
    parser.add_argument("--adapter", type=typed, metavar="FOLDER", help="PEFT LoRA adapter: scored beside its base")
    parser.add_argument(
        "--other-base", action="store_true", help="the base is deliberately another than the adapter was trained on"
    )
    parser.add_argument(
        "--shards", required=True, nargs="+", metavar="SPEC", help="paths, brace patterns, folders or URLs"
    )
    parser.add_argument("-o", "--output", type=typed, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--pairs", type=whole(), default=0, help="score the first PAIRS pairs only (default: all)")
    parser.add_argument("--pages", type=whole(), default=12, help="pairs shown token by token (default %(default)s)")
    parser.add_argument(
        "--corrupt",
        choices=get_args(CorruptKind),
        help="a fourth view: the own image, corrupted in this way",
    )
    parser.add_argument("--dtype", choices=get_args(Dtype), default="auto")
    add_quantise(parser)
    parser.add_argument("--attention", choices=("auto", "flash", "varlen", "sdpa"), default="auto")
    parser.add_argument("--max-text-tokens", type=whole(2), default=128, help="text is cut there (default %(default)s)")
    parser.add_argument(
        "--tokens",
        type=whole(1),
        default=16384,
        help="tokens of a forward pass (default %(default)s): lower it when memory runs out",
    )
    parser.add_argument("--title", help="title of the page")


def run(arguments: argparse.Namespace) -> int:
    """Probes; 0."""
    from . import command

    return command.run(arguments)

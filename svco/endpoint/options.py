"""The options of every command that asks an endpoint."""

from __future__ import annotations

import argparse
from typing import Any

from ..basics.intervals import real, whole
from ..basics.shipped import typed


def add_asking(parser: argparse._ActionsContainer, where: str) -> None:
    """Adds ``--yes``, ``--prices``, ``--cache`` (by default ``where``), ``--at-once``, ``--timeout`` and ``--retries``."""
    parser.add_argument("--yes", action="store_true", help="go on after the estimate of tokens and price")
    parser.add_argument("--prices", type=typed, metavar="FILE", help="table of prices instead of svco's own")
    parser.add_argument("--cache", type=typed, metavar="FILE", help=f"file of replies (default: {where})")
    parser.add_argument(
        "--at-once", type=whole(1, 1024), default=8, metavar="N", help="requests under way (default %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=real("[1, 1e6]"), default=600.0, metavar="S", help="seconds for a reply (default %(default)g)"
    )
    parser.add_argument(
        "--retries", type=whole(0, 100), default=2, metavar="N", help="of a request that failed (default %(default)s)"
    )


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_asking` added, by the names of the fields that take it."""
    from .prices import SHIPPED

    names = ("yes", "cache", "at_once", "timeout", "retries")
    return {name: getattr(arguments, name) for name in names} | {"prices": arguments.prices or SHIPPED}

"""The options of ``svco report``; what does the work is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...basics.intervals import whole
from ...basics.shipped import typed


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``report`` takes."""
    parser.description = (
        "Writes one HTML file, which needs nothing outside it, about one or several runs: how they are, what differs between "
        "their recipes, curves, where time and memory went, skipped steps and bad pairs, the held-out pairs before and after "
        "with errors, and some of them to look at. A run may be unfinished."
    )
    parser.add_argument("runs", nargs="+", type=typed, metavar="RUN", help="run folders, or folders of runs")
    parser.add_argument(
        "-o", "--output", type=typed, default=Path("report.html"), metavar="FILE", help="the page (default %(default)s)"
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=whole(1, 86400),
        const=10,
        metavar="SECONDS",
        help="write the page again every SECONDS (default %(const)s) while a run goes on; the page loads itself anew",
    )
    parser.add_argument(
        "--evaluations",
        nargs="+",
        type=typed,
        default=[],
        metavar="DIR",
        help="results of svco eval to show besides those inside the runs' folders",
    )
    parser.add_argument(
        "--examples", type=whole(), default=6, metavar="N", help="held-out pairs that are shown (default %(default)s)"
    )
    parser.add_argument(
        "--tokens",
        type=whole(),
        default=0,
        metavar="N",
        help="show so many of them token by token, which loads base and weights (default %(default)s)",
    )
    parser.add_argument("--title", help="title of the page")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page; 0."""
    from . import command

    return command.run(arguments)

"""The options of ``svco status``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...basics.shipped import typed


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``status`` takes."""
    from ...record.status import EXIT_CODES, EXIT_ORDER

    states = {code: [state for state in EXIT_CODES if EXIT_CODES[state] == code] for code in EXIT_ORDER}
    codes = ", ".join(f"{code} {' or '.join(found)}" for code, found in states.items())
    parser.description = "State, progress, last checkpoint and what to do next of runs."
    parser.epilog = (
        f"Exit code: {codes}; 2 when there is no such run. Of several runs the one named first here. A launcher's exit "
        "code says less: go by this one."
    )
    parser.add_argument("runs", nargs="*", type=typed, help="run folders, or folders of runs (default: runs)")
    parser.add_argument(
        "--verify", action="store_true", help="read every byte of the last checkpoint, not only its sizes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints how the runs are; the exit code that says it."""
    from ...record.status import EXIT_ORDER, find_runs, look

    seen = [look(run, arguments.verify) for run in find_runs(arguments.runs or [Path("runs")])]
    print("\n\n".join(text for text, _ in seen))
    return min((code for _, code in seen), key=EXIT_ORDER.index)

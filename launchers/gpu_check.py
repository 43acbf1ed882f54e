"""Checks and times svco on one CUDA GPU, alone and offline: ``python launchers/gpu_check.py``. Without a GPU: a dry run."""

from __future__ import annotations

import argparse
from pathlib import Path

from svco.basics.errors import exit_codes
from svco.basics.intervals import real

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="launchers/gpu_check.py",
        description="Kernels against float32, one step against the baseline, the noise of Δ, and the ladder at true 7B shapes.",
    )
    parser.add_argument("--out", metavar="FOLDER", default=RESULTS, help="where the results go (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=real("(0, 100000]"), default=8.0, help="leave out what would not fit (default: %(default)s)"
    )
    arguments = parser.parse_args()

    from svco.commands.bench.gpu_report import run

    raise SystemExit(run(Path(arguments.out), arguments.minutes))


if __name__ == "__main__":
    with exit_codes():
        main()

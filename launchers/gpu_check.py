"""Checks and times svco on one CUDA GPU, alone and offline: ``python launchers/gpu_check.py``. Without a GPU: a dry run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from svco.basics.errors import exit_codes
from svco.basics.intervals import real

BEGAN = time.time()
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="launchers/gpu_check.py",
        description="Kernels against float32, one step against the baseline, the noise of Δ, and the ladder at true 7B shapes.",
    )
    parser.add_argument("--out", metavar="FOLDER", default=RESULTS, help="where the results go (default: %(default)s)")
    parser.add_argument(
        "--minutes",
        type=real("(0, 100000]"),
        default=8.0,
        help="all it may take, its start included: a part under way is broken off (default: %(default)s)",
    )
    arguments = parser.parse_args()

    from svco.commands.bench.gpu_conduct import conduct

    raise SystemExit(conduct(Path(arguments.out), arguments.minutes, BEGAN))


if __name__ == "__main__":
    with exit_codes():
        main()

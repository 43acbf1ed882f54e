"""Makes data_shards/tiny_llava, the embedded base model, from nothing: ``python launchers/make_tiny_base.py``.

Seeded. Measures the result on the shipped validation pairs and on freshly rendered ones, and writes the model card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from svco.basics.errors import exit_codes
from svco.basics.intervals import whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("data_shards/tiny_llava"), help="folder of the base model")
    parser.add_argument("--seed", type=whole(), default=0, help="seeds scenes, order and initial values")
    parser.add_argument("--threads", type=whole(1, 1024), default=1, help="CPU threads")
    parser.add_argument("--gate", type=whole(1), default=2048, help="freshly rendered pairs to measure the result on")
    parser.add_argument("--stages", type=Path, help="keep each stage's weights here and continue from them")
    arguments = parser.parse_args()

    from svco.tiny_world.make_base import make_and_measure

    make_and_measure(arguments.output, arguments.seed, arguments.threads, arguments.gate, arguments.stages)


if __name__ == "__main__":
    with exit_codes():
        main()

"""Draws a raw source of the embedded world, flaws and all, as two folders of pictures and a CSV of captions: what the data
factory starts from. ``python launchers/make_raw_world.py raw``, then ``svco data import folder raw``."""

from __future__ import annotations

import argparse
from pathlib import Path

from svco.basics.errors import UserError, exit_codes
from svco.basics.intervals import whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=" ".join(__doc__.split()), formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder that is made")
    parser.add_argument("--pairs", type=whole(1), default=2000, help="how many")
    parser.add_argument("--from", dest="start", type=whole(), default=0, help="number of the first pair of the split")
    parser.add_argument("--split", choices=("train", "val", "heldout", "gate"), default="train", help="of the world")
    parser.add_argument("--flawless", action="store_true", help="every edit came out")
    arguments = parser.parse_args()

    from svco.tiny_world.raw import raw_pair, write_raw

    if arguments.output.exists():
        raise UserError(f"{arguments.output} is there already; name a folder that is not.")
    numbers = range(arguments.start, arguments.start + arguments.pairs)
    pairs = (raw_pair(arguments.split, number, not arguments.flawless) for number in numbers)
    counts = write_raw(pairs, arguments.output)
    print(", ".join(f"{fault}: {count}" for fault, count in counts.items()))


if __name__ == "__main__":
    with exit_codes():
        main()

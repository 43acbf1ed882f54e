"""Renders the embedded shards and their digests: ``python launchers/make_tiny_shards.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from svco.basics.errors import exit_codes
from svco.basics.intervals import whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("data_shards"), help="folder of the shards")
    parser.add_argument("--seed", type=whole(), default=0, help="seed of the world")
    arguments = parser.parse_args()

    from svco.basics.files import file_digest, write_whole
    from svco.data.shards import write_shards
    from svco.tiny_world.contrast import SPLITS, world_pairs

    lines = []
    for split, (count, per_shard) in SPLITS.items():
        for path in write_shards(world_pairs(split, 0, count, arguments.seed), arguments.output, split, per_shard):
            lines.append(f"{file_digest(path)}  {path.name}\n")
            print(lines[-1], end="")
    write_whole(arguments.output / "SHA256SUMS", "".join(lines))


if __name__ == "__main__":
    with exit_codes():
        main()

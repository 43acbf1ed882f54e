"""Writes a base model of a true shape with random weights, for trials of memory, disk and time.

Sharded bfloat16 safetensors, drawn shard by shard, with the embedded base model's tokenizer and chat template.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from svco.basics.errors import UserError, exit_codes
from svco.basics.intervals import whole
from svco.basics.progress import shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--shape", required=True, help="llava15-7b, llava15-13b, llava16-34b (one tile), smolvlm2-256m or smolvlm2-500m"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the base model")
    parser.add_argument(
        "--image", type=whole(0, 100_000), default=0, help="side of an image in pixels; 0: the shape's own"
    )
    parser.add_argument("--layers", type=whole(0, 1000), default=0, help="decoder layers; 0: all")
    parser.add_argument("--seed", type=whole(), default=0, help="seeds the weights")
    parser.add_argument("--shard", default="2GB", help="size of a file, and about the memory this takes")
    arguments = parser.parse_args()

    from svco.commands.bench.random_base import SMOLVLM, make_random_base, make_random_smolvlm
    from svco.commands.bench.shapes import SHAPES

    written = (arguments.output, arguments.seed, arguments.shard, shown(True))
    if arguments.shape in SMOLVLM:
        count = make_random_smolvlm(SMOLVLM[arguments.shape], arguments.layers, *written)
        print(f"{arguments.output}: {count:,} parameters")
        return
    if arguments.shape not in SHAPES:
        raise UserError(f"There is no shape {arguments.shape!r}; there are: {', '.join([*SHAPES, *SMOLVLM])}.")
    shape = SHAPES[arguments.shape].reduced(arguments.layers, 1, 0)
    shape = replace(shape, image=arguments.image or shape.image)
    count = make_random_base(shape, *written)
    print(f"{arguments.output}: {count:,} parameters" + (f" ({shape.cut})" if shape.cut else ""))


if __name__ == "__main__":
    with exit_codes():
        main()

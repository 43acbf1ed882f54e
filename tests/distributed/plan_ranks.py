"""Run by test_plan_ranks.py on every rank: what ZeRO-3 holds and gathers. Arguments: DeepSpeed JSON, report file."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from svco import engine
from svco.basics.dist import world_from_environment
from svco.commands.bench.plan_check import Case
from svco.commands.bench.plan_ranks import check_sharded
from svco.commands.bench.shapes import SHAPES
from svco.recipe.ds_config import read_ds_config

TINY = SHAPES["tiny"]
CASES = (
    (Case("LoRA", TINY, False, 4, "float32", 2), {}),
    (Case("full", TINY, True, 2, "float32", 1), {}),
    # Norms stay on every rank, and a few layers between forward and backward.
    (
        Case("LoRA, roomy", TINY, False, 4, "bfloat16", 1),
        {"stage3_param_persistence_threshold": 200, "stage3_max_reuse_distance": 500_000},
    ),
    (Case("full, roomy", TINY, True, 0, "bfloat16", 1), {"stage3_max_reuse_distance": 900_000}),
)


def main():
    ds, out, *_ = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    world = world_from_environment()
    engine.start(world)
    rows = [row for case, limits in CASES for row in check_sharded(case, read_ds_config(ds), world, **limits)]
    if world.is_main:
        Path(out).write_text(json.dumps([asdict(row) | {"off": row.off, "passed": row.passed} for row in rows]))
    engine.stop()


main()

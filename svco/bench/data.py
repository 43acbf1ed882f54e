"""Whether the loader keeps up: pairs it makes a second against pairs a step consumes."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ..config import Config, ObjectiveConfig
from ..dist import World
from ..evaluate import InOrder
from ..families import load_family
from ..job import make_loader
from ..objectives import make_objective
from ..packing import PackedCollate
from ..prepare import Lengths
from ..shards import ShardSet
from .ladder import LADDER, PRODUCT
from .run import Bench, Measured, Plan, seconds_of

TINY = Path(__file__).resolve().parents[2] / "data_shards" / "tiny_llava"


def bench_data(spec: str, world: World, seconds: float = 5.0) -> str:
    """Reads, decodes, tokenises and packs the pairs of ``spec`` in this process, and times the product's step beside it."""
    config = Config()
    family = load_family(str(TINY), config.data.max_text_tokens)
    shards = ShardSet.open(spec)
    count = len(shards)
    # Lengths only size the micro-batches here; measuring them belongs to the start of a run.
    flat = Lengths(*(torch.full((count, n), 20).numpy() for n in (3, 2)), *torch.zeros(2, count).int().numpy())
    from ..job import Split

    objective = make_objective(ObjectiveConfig())
    order = InOrder(count, 16)
    loader = make_loader(Split(shards, flat), order, objective.cells, family, config, world, 0, order.steps_per_epoch)
    loader.workers = 0
    made, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for step in loader:
            made += step.slots
            if time.perf_counter() - began > seconds:
                break
    rate = made / (time.perf_counter() - began)
    plan = Plan("tiny", pairs=16, repetitions=5)
    bench = Bench(plan, objective, None, world)
    row = next(row for row in LADDER if row.name == PRODUCT)
    contestant = bench.enter(row, Measured(row.name), None)
    for _ in range(plan.repetitions):
        contestant.timed_step()
    appetite = plan.pairs / seconds_of({"seconds": contestant.result.seconds})
    tokens = PackedCollate(objective.cells)(bench.pairs, bench.family).llm_tokens / plan.pairs
    return (
        f"### The loader on {spec}\n\n{rate:,.0f} pairs/s in one process (read, decode, tokenise, pack), against "
        f"{appetite:,.1f} pairs/s that the tiny model's step consumes on the same core ({tokens:.0f} tokens a pair): "
        f"{rate / appetite:.1f} times its appetite."
    )

"""What ranks hold and exchange under ZeRO-3, against what the plan says of it."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ... import engine as engines
from ...basics.dist import World
from ...model.recompute import set_recompute
from ...recipe.ds_config import fill
from ..plan.sharding import Sharding, states
from ..plan.traffic import gathered
from .count import moved
from .ladder import PRODUCT, ROWS, Tune, bench_config, build, make_batch, make_models
from .plan_check import BILLION, SVCO, Case, Compared, described
from .run import tight
from .shapes import SHAPES, SyntheticFamily, random_pairs

_SMALL = SHAPES["llava15-7b"].reduced(6, 0.125, 4008)
SHARDED = (
    Case("7B at 1/8 width, 6 layers, LoRA", _SMALL, False, 6),
    Case("the same, full", _SMALL, True, 3),
    Case("the same, float32", _SMALL, True, 0, "float32"),
    Case("34B at 1/8 width, 4 layers, LoRA", SHAPES["llava16-34b"].reduced(4, 0.125, 4008), False, 2),
    Case("0.5B, LoRA", replace(BILLION, layers=6), False, 6),
)
"""Run on every rank under ZeRO-3 with tight limits."""


def check_sharded(case: Case, ds: dict[str, Any], world: World, **limits: int) -> list[Compared]:
    """What a rank holds under ZeRO-3, between steps and before gradients are reduced, and what travels. A collective.

    ``limits`` replace the tight ones, under which nothing is kept for a later use.
    """
    a, tuning, _ = described(case)
    config = bench_config(Tune(case.full))
    live = (a.layer + (0 if case.full else tuning.adapters(a))) * (2 if case.full else 1)
    sized = tight(ds, live)
    sized["zero_optimization"] |= limits
    sharding = Sharding.of("the check", sized, config, world.size, live)
    expected = gathered(a, tuning, case.recompute, sharding.limits)
    held = states(a, tuning, sharding, world.size, expected.persistent)
    found = run_sharded(case, fill(sized, config, world.size, case.dtype), config, world)
    between = sum(vars(held).values()) - held.local
    b = tuning.weight_bytes
    travelling = b * (expected.total + expected.persistent)
    figures = [
        ("held by a rank between steps", "memory", between, found["between"]),
        ("held before gradients are reduced", "memory", between + held.local, found["before"]),
        ("gathered in a step", "traffic", travelling, moved(found["collectives"], "gather")[1]),
        ("reduced in a step", "traffic", b * tuning.trained(a), moved(found["collectives"], "scatter")[1]),
    ]
    return [Compared(f"{case.name}, {world.size} ranks", *figure) for figure in figures]


def run_sharded(case: Case, ds: dict[str, Any], config: Any, world: World) -> dict[str, Any]:
    """Three steps of ``case``; the bytes of rank 0's tensors and the third step's collectives."""
    base = tensor_bytes()
    family = SyntheticFamily(case.shape)
    device, dtype = torch.device("cpu"), getattr(torch, case.dtype)
    tuned = build(ROWS[PRODUCT], make_models(case.shape, family, Tune(case.full), dtype, device), family, "sdpa")
    set_recompute(tuned.scorer.layers, case.recompute)
    runner = engines.make_engine(tuned, config.optim, world, ds, None)
    runner.train()
    batch = make_batch(ROWS[PRODUCT], SVCO, random_pairs(case.shape, case.pairs, world.rank), family, None)
    batch.layout.blocks  # noqa: B018 (made once for all layers)
    base += tensor_bytes(batch) + tensor_bytes(batch.layout.blocks)
    found: dict[str, Any] = {}
    for last in (False, False, True):  # ZeRO-3 records the order of modules in its second step
        with engines.counting_collectives(world) as collectives:
            with runner.accumulation():
                runner.backward(SVCO(*runner(batch))[0].mean())
                if last:
                    found["before"] = tensor_bytes() - base
            runner.step(0.0)
    return found | {"between": tensor_bytes() - base, "collectives": dict(collectives)}


def tensor_bytes(where: Any = None) -> int:
    """Bytes of all tensors' storages: of the process, or of what ``where`` holds."""
    if where is None:
        gc.collect()
        candidates = gc.get_objects()
    else:
        candidates = tree_leaves([vars(x) if hasattr(x, "__dict__") else x for x in tree_leaves(where)])
    storages = {}
    for item in candidates:
        # By type: asking torch's lazy modules for their class would load them.
        if issubclass(type(item), torch.Tensor) and item.device.type == "cpu":
            storages[item.untyped_storage()._cdata] = item.untyped_storage().nbytes()
    return sum(storages.values())

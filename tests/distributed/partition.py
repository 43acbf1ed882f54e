"""Run by test_partition.py on every rank: loads under ZeRO-3 and reports what this rank holds, once for each case.

Arguments: DeepSpeed JSON, report file, a JSON list of every case's recipe overrides.
"""

import json
import sys
from pathlib import Path

from svco import engine
from svco.basics.dist import world_from_environment
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.families import load_family
from svco.model.load import load_tuned, resolve_dtype
from svco.model.recompute import resolve_recompute, set_recompute
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe
from svco.tiny_world.contrast import world_pairs


def held(config, world, ds):
    """Shares before, and log-probs around, one optimiser step."""
    dtype = resolve_dtype(config.model, world.device)
    ds = fill(ds, config, world.size, str(dtype).removeprefix("torch."))
    family = load_family(config.model.base, 128)
    with engine.loading(ds):
        strategy = {"lora": "lockstep", "full": "frozen-copy"}[config.model.tune]
        tuned = load_tuned(config, family, dtype, strategy, world.device)
    set_recompute(tuned.scorer.layers, resolve_recompute(config.optim.recompute, len(tuned.scorer.layers)))
    base = [p for n, p in tuned.scorer.named_parameters() if ".lora_" not in n and "modules_to_save" not in n]
    report = {
        "share": sum(p.ds_tensor.numel() for p in base),
        "whole": sum(p.ds_numel for p in base),
        "resident": sum(p.numel() for p in base),
    }
    runner = engine.make_engine(tuned, config.optim, world, ds, None)
    batch, _ = Encode(family, PackedCollate())(list(world_pairs("val", world.rank * 2, 2)))
    policy, reference = runner(batch)
    with runner.accumulation():
        runner.backward(policy.logps.mean())
    norm = float(runner.step(1e-3))
    after = runner(batch)
    return report | {
        "equal": bool((policy.logps == reference.logps).all()),
        "moved": bool((after[0].logps != after[1].logps).any()),
        "still": bool((after[1].logps == reference.logps).all()),
        "norm": norm,
        "dtype": str(tuned.policy.dtype),
        "logps": str(policy.logps.dtype),
    }


def main():
    ds, out, cases = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    world = world_from_environment()
    engine.start(world)
    reports = []
    for overrides in json.loads(cases):
        reports.append(held(load_recipe(None, overrides), world, read_ds_config(ds)))
        world.barrier()  # weights gathered ahead for a backward pass that never comes are still on their way
    Path(f"{out}-{world.rank}.json").write_text(json.dumps(reports))
    engine.stop()


main()

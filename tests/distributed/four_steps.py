"""Run by test_lockstep.py on every rank: four optimiser steps of the product under ZeRO-3, and what travelled in the last one.

Arguments: DeepSpeed JSON, pairs a rank, report file, a JSON object: case -> (place of the recomputation dial, recipe overrides).
"""

import json
import sys
from pathlib import Path

import torch

from svco import engine
from svco.basics.dist import world_from_environment
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.families import load_family
from svco.model.load import load_tuned, resolve_dtype
from svco.model.recompute import set_recompute
from svco.objectives.reference import choose_reference
from svco.objectives.table import make_objective
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe
from svco.tiny_world.contrast import world_pairs

STEPS = 4


def four_steps(config, world, ds, pairs, recomputed):
    """Loss and gradient norm of each step, and the collectives of the last."""
    family, objective = load_family(config.model.base, 128), make_objective(config.objective)
    dtype = resolve_dtype(config.model, world.device)
    filled = fill(read_ds_config(ds), config, world.size, str(dtype).removeprefix("torch."))
    filled["zero_optimization"]["log_trace_cache_warnings"] = True
    with engine.loading(filled):
        strategy = choose_reference(config.model.reference, config.model.tune, objective)
        tuned = load_tuned(config, family, dtype, strategy, world.device, progress=False)
    set_recompute(tuned.scorer.layers, recomputed)
    models = [m for m in (tuned.policy, tuned.reference) if m is not None]
    weights = {id(p): getattr(p, "ds_numel", p.numel()) * p.element_size() for m in models for p in m.parameters()}
    runner = engine.make_engine(tuned, config.optim, world, filled, None)
    runner.train()
    batch, _ = Encode(family, PackedCollate())(list(world_pairs("val", world.rank * pairs, pairs)))
    losses, norms = [], []

    def step():
        with runner.accumulation():
            loss = objective(*runner(batch))[0].mean()
            runner.backward(loss)
        norms.append(float(runner.step(config.optim.lr)))
        losses.append(sum(world.gather(float(loss.detach()))) / world.size)

    tuned.scorer.saved.wanted = True
    step()
    step()  # ZeRO-3 records the order of modules in its second step
    if world.is_main:
        print("steady", flush=True)
    step()
    runner.train(False)
    with torch.no_grad():  # a validation must not make it forget
        runner(batch)
    runner.train()
    with engine.counting_collectives(world) as collectives:
        step()
    if world.is_main:
        print("counted", flush=True)
    # The control: a module out of turn, which is what the warning is for.
    tuned.scorer.projector(torch.zeros(1, tuned.policy.config.vision_config.hidden_size, dtype=dtype))
    return {
        "losses": losses,
        "norms": norms,
        "collectives": collectives,
        "model_bytes": sum(weights.values()),
        "kept_per_token": tuned.scorer.saved.per_token,
    }


def main():
    ds, pairs, out, cases = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    world = world_from_environment()
    engine.start(world)
    reports = {}
    for name, (dial, overrides) in json.loads(cases).items():
        if world.is_main:
            print(f"case {name}", flush=True)
        reports[name] = four_steps(load_recipe(None, overrides), world, ds, int(pairs), dial)
        world.barrier()  # weights gathered ahead by the module out of turn are still on their way
    if world.is_main:
        Path(out).write_text(json.dumps(reports))
    engine.stop()


main()

"""Run by test_offload.py on every rank: hierarchical shards, checked as they are and with one of them damaged.

Arguments: DeepSpeed JSON, report file, recipe overrides.
"""

import json
import sys
from pathlib import Path

import torch

from svco import engine
from svco.basics.dist import world_from_environment
from svco.basics.errors import UserError
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.engine.gathered import compare
from svco.families import load_family
from svco.model.load import load_tuned
from svco.objectives.table import make_objective
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe
from svco.tiny_world.contrast import world_pairs

ds_path, out, *overrides = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
config = load_recipe(None, overrides)
world = world_from_environment()
engine.start(world)
ds = fill(read_ds_config(ds_path), config, world.size, "float32", local_size=world.local_size)
family, objective = load_family(config.model.base, 128), make_objective(config.objective)
with engine.loading(ds):
    tuned = load_tuned(config, family, torch.float32, "lockstep", world.device, progress=False)
runner = engine.make_engine(tuned, config.optim, world, ds, None)
runner.train()
batch, _ = Encode(family, PackedCollate())(list(world_pairs("val", world.rank * 2, 2)))
losses = []


def step():
    with runner.accumulation():
        loss = objective(*runner(batch))[0].mean()
        runner.backward(loss)
    runner.step(config.optim.lr)
    losses.append(sum(world.gather(float(loss.detach()))) / world.size)


step()
step()  # both are followed by a check
frozen = next(p for p in tuned.scorer.layers[0].parameters() if not p.requires_grad)
report = {
    "losses": losses,
    "hierarchical": frozen.ds_secondary_tensor is not None,
    "group": ds["zero_optimization"]["zero_hpz_partition_size"],
}
kept = frozen.ds_secondary_tensor.clone()
for damage, ranks in (("one rank's", (1,)), ("every rank's", range(world.size))):
    if world.rank in ranks:
        frozen.ds_secondary_tensor.mul_(1.001)
    try:
        runner.check.after(1)
    except UserError as error:
        report[damage] = str(error)
    frozen.ds_secondary_tensor.copy_(kept)
runner.check.after(1)
try:
    compare({"w": (torch.ones(4) + world.rank, torch.ones(2) + world.rank)}, 1.0, world)
except UserError as error:
    report["apart"] = str(error)
Path(f"{out}-{world.rank}.json").write_text(json.dumps(report))
engine.stop()

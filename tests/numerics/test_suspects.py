"""A gradient that is not finite though its loss is: the pair that brought it is found in one backward pass of all pairs."""

from types import SimpleNamespace

import pytest
import torch
from places import BASE

from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.model.load import load_tuned
from svco.model.recompute import set_recompute
from svco.objectives.table import make_objective
from svco.recipe.read import load_recipe
from svco.run.suspects import of_gradients

PAIRS = 6
JOB = SimpleNamespace(train=SimpleNamespace(shards=SimpleNamespace(key=lambda index: f"pair-{index}")))


@pytest.fixture(scope="module")
def world_of_pairs(family):
    from svco.tiny_world.contrast import world_pairs

    config = load_recipe(None, [f"model.base={BASE}", "lora.rank=4", "optim.recompute=none"])
    tuned = load_tuned(config, family, torch.float32, "lockstep", torch.device("cpu"))
    batch, _ = Encode(family, PackedCollate())(list(world_pairs("val", 3, PAIRS)))
    return tuned, batch, make_objective(config.objective)


def suspects(world_of_pairs, spoil=None, spoiled=(), odd=float("nan")):
    """Key -> terms of what is found, when the gradients of the pairs ``spoiled`` become ``odd`` at the module ``spoil``."""
    tuned, batch, objective = world_of_pairs
    rows = torch.isin(batch.owners(), torch.tensor(spoiled, dtype=torch.int64))
    handle = None
    if spoil is not None:

        def forward_hook(_module, _inputs, output):
            if output.requires_grad:
                there = rows if output.shape[1] == len(rows) else rows[batch.tail.rows]  # few in the last layer
                output.register_hook(lambda grad: torch.where(there.view(1, -1, 1), odd, grad))

        handle = spoil.register_forward_hook(forward_hook)
    try:
        with tuned.scorer.hearing_gradients() as heard:
            losses, _ = objective(*tuned.scorer(batch))
            assert losses.isfinite().all()
            losses.sum().backward()
    finally:
        if handle is not None:
            handle.remove()
        for p in tuned.trainable.values():
            p.grad = None
    return {suspect.key: suspect.terms for suspect in of_gradients(JOB, range(PAIRS), batch, heard)}


def test_rows_know_their_pairs(world_of_pairs):
    _, batch, _ = world_of_pairs
    owners = batch.owners()
    assert owners.tolist() == sorted(owners.tolist()) and set(owners.tolist()) == set(range(PAIRS))
    assert (owners[batch.predicts] == batch.cell // (2 * batch.view_count)).all()
    assert suspects(world_of_pairs) == {}, "the control: nothing is spoiled"


@pytest.mark.parametrize(
    ("part", "layer", "recompute"),
    [("mlp", -1, False), ("mlp.down_proj", 1, True), ("self_attn.o_proj", 0, True), ("input_layernorm", 0, False)],
)
def test_the_pair_is_found_wherever_its_gradient_breaks(world_of_pairs, part, layer, recompute):
    tuned = world_of_pairs[0]
    set_recompute(tuned.scorer.layers, len(tuned.scorer.layers) if recompute else 0)
    module = tuned.policy.get_submodule(f"model.language_model.layers.{layer % len(tuned.scorer.layers)}.{part}")
    assert suspects(world_of_pairs, spoil=module, spoiled=[2]) == {"pair-2": {"gradient": "nan"}}
    both = suspects(world_of_pairs, spoil=module, spoiled=[0, 5], odd=float("inf"))
    assert set(both) == {"pair-0", "pair-5"}
    set_recompute(tuned.scorer.layers, 0)

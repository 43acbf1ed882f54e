"""The last layer asked for the rows that predict alone, against all of it: both streams, values and gradients."""

import pytest
import torch
from places import BASE
from torch import nn

from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.model.last import Others, narrows
from svco.model.load import load_tuned
from svco.model.recompute import set_recompute
from svco.objectives.table import make_objective
from svco.recipe.read import load_recipe

TUNES = {"lora": ("lockstep", "lora.rank=4"), "full": ("frozen-copy", "model.tune=full")}


@pytest.fixture(params=TUNES)
def step(request, family, make_pairs):
    """(scorer, batch, a step with its last layer asked for few rows or for all -> log-probs of both streams and gradients)."""
    strategy, override = TUNES[request.param]
    config = load_recipe(None, [f"model.base={BASE}", override])
    tuned = load_tuned(config, family, torch.float64, strategy, torch.device("cpu"))
    with torch.no_grad():  # a fresh policy is its reference
        for parameter in tuned.trainable.values():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    batch, _ = Encode(family, PackedCollate())(make_pairs("val", 0, 3))
    objective = make_objective(config.objective)

    def run(narrow, recompute=0):
        tuned.scorer.narrows = narrow
        set_recompute(tuned.scorer.layers, recompute)
        scores = tuned.scorer(batch)
        objective(*scores)[0].mean().backward()
        gradients = {name: p.grad.clone() for name, p in tuned.trainable.items() if p.grad is not None}
        for parameter in tuned.trainable.values():
            parameter.grad = None
        return [s.logps.detach() for s in scores], gradients

    return tuned.scorer, batch, run


def furthest(ours, theirs):
    """Largest relative difference of the log-probs and of the gradients of two steps."""
    assert ours[1].keys() == theirs[1].keys()
    logps = max(((x - y).norm() / y.norm()).item() for x, y in zip(ours[0], theirs[0]))
    return logps, max(((x - theirs[1][n]).norm() / theirs[1][n].norm()).item() for n, x in ours[1].items())


def test_few_rows_give_what_all_give(step, monkeypatch):
    scorer, batch, run = step
    last, seen = scorer.layers[-1].layer.layer, []
    hooks = [
        last.get_submodule(name).register_forward_hook(lambda _m, x, _y, name=name: seen.append((name, x[0].shape[1])))
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp")
    ]
    whole = run(False)
    assert {rows for _, rows in seen} == {batch.llm_tokens}
    seen.clear()
    few = run(True)
    for hook in hooks:
        hook.remove()
    asked, rest = len(batch.tail.rows), len(batch.tail.rest)
    assert asked == len(batch.predicts.unique()) < 0.4 * batch.llm_tokens
    assert set(seen) == {
        ("self_attn.q_proj", asked),
        ("self_attn.k_proj", asked),
        ("self_attn.k_proj", rest),
        ("mlp", asked),
    }
    assert max(furthest(few, whole)) <= 1e-9
    assert max(furthest(run(True, recompute=4), whole)) <= 1e-9

    right = Others.join
    monkeypatch.setattr(Others, "join", lambda others, key, value: right(others, key, 0.99 * value))
    assert min(furthest(run(True), whole)) > 1e-6, "the control: values a hundredth off are seen"


def test_a_layer_without_queries_of_its_own_runs_whole():
    fused, recurrent = nn.Module(), nn.Module()
    fused.self_attn = nn.Module()
    fused.self_attn.qkv_proj = nn.Linear(4, 12)
    recurrent.linear_attn = nn.Linear(4, 4)
    assert not narrows(fused) and not narrows(recurrent)

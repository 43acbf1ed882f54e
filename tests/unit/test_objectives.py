"""S-VCO as a pure function: golden facts, a float64 oracle, invariances, and controls that must fail."""

import math

import pytest
import torch

from svco.config import ObjectiveConfig
from svco.errors import UserError
from svco.objectives import make_objective
from svco.views import ALL_CELLS, BLIND, CLASH, MATCH, Scores


def scores(logps):
    return Scores(logps, torch.full(logps.shape[:2], 7))


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 2, 3, generator=generator, dtype=torch.float64) * 20 for _ in range(2)]


def test_policy_equal_to_reference_gives_four_ln_two(tensors):
    loss, report = make_objective(ObjectiveConfig())(scores(tensors[0]), scores(tensors[0]))
    assert loss.tolist() == pytest.approx([4 * math.log(2)] * 5, abs=1e-12)
    assert round(4 * math.log(2), 6) == 2.772589
    assert not report["accuracy/attend_0"].any(), "a margin of exactly 0 is not a win"


def test_gradient_at_the_reference(tensors):
    """Per side (−β₁/2, (β₁−β₂)/2, β₂/2) over match, blind, clash, with another β for each term."""
    config = ObjectiveConfig(beta_attend=(0.1, 0.3), beta_reject=(0.2, 0.5))
    policy = tensors[0].clone().requires_grad_()
    make_objective(config)(scores(policy), scores(tensors[0]))[0].sum().backward()
    for side, (b1, b2) in enumerate(zip(config.beta_attend, config.beta_reject)):
        assert policy.grad[:, side].tolist() == pytest.approx([pytest.approx([-b1 / 2, (b1 - b2) / 2, b2 / 2])] * 5)


def oracle(policy, reference, config):
    """The paper's formula in plain Python, term by term."""
    total = []
    for p in range(len(policy)):
        loss = 0.0
        for s in (0, 1):
            d = [float(policy[p, s, v] - reference[p, s, v]) for v in range(3)]
            loss += config.weight_attend[s] * math.log1p(math.exp(-config.beta_attend[s] * (d[0] - d[1])))
            loss += config.weight_reject[s] * math.log1p(math.exp(-config.beta_reject[s] * (d[1] - d[2])))
        total.append(loss)
    return total


@pytest.mark.parametrize(
    "config", [ObjectiveConfig(), ObjectiveConfig(beta_attend=(0.3, 0.1), weight_reject=(2.0, 0.5))]
)
def test_against_the_formula(tensors, config):
    loss, report = make_objective(config)(*map(scores, tensors))
    assert loss.tolist() == pytest.approx(oracle(*tensors, config), rel=1e-12)
    summed = sum(
        w[s] * report[f"loss/{name}_{s}"]
        for name, w in (("attend", config.weight_attend), ("reject", config.weight_reject))
        for s in (0, 1)
    )
    assert torch.allclose(summed, loss)


def test_invariances_and_their_negative_control(tensors):
    objective = make_objective(ObjectiveConfig())
    loss = objective(*map(scores, tensors))[0]
    assert torch.allclose(objective(*(scores(t.flip(1)) for t in tensors))[0], loss, rtol=1e-13), "swapping the sides"
    shifted = tensors[0].clone()
    shifted[:, 0] += 3.7
    assert torch.allclose(objective(scores(shifted), scores(tensors[1]))[0], loss, rtol=1e-12), (
        "shifting a side's three views"
    )
    one_sided = make_objective(ObjectiveConfig(weight_attend=(1, 0), weight_reject=(1, 0)))
    assert not torch.allclose(one_sided(*(scores(t.flip(1)) for t in tensors))[0], one_sided(*map(scores, tensors))[0])
    shifted[:, 0, CLASH] += 3.7
    assert not torch.allclose(objective(scores(shifted), scores(tensors[1]))[0], loss)


@pytest.mark.parametrize(
    ("weights", "cells"),
    [
        ({}, ALL_CELLS),
        ({"weight_attend": (1.0, 0.0), "weight_reject": (0.0, 0.0)}, {(0, MATCH), (0, BLIND)}),
        ({"weight_attend": (0.0, 0.0)}, {(s, v) for s in (0, 1) for v in (BLIND, CLASH)}),
    ],
)
def test_undeclared_cells_are_never_read(tensors, weights, cells):
    objective = make_objective(ObjectiveConfig(**weights))
    assert objective.cells == cells
    declared = torch.zeros(2, 3, dtype=torch.bool)
    for cell in cells:
        declared[cell] = True
    policy, reference = (torch.where(declared, t, torch.nan) for t in tensors)
    policy.requires_grad_()
    loss = objective(scores(policy), scores(reference))[0]
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.grad[:, declared].isfinite().all()


def test_unknown_objective_lists_the_known():
    with pytest.raises(UserError, match="svco"):
        make_objective(ObjectiveConfig(name="svoc"))

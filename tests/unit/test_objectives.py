"""Every objective as a pure function: an oracle from the papers' formulas, the reference point, cells, invariances."""

import math

import pytest
import torch

from svco.basics.errors import UserError
from svco.basics.views import ALL_CELLS, BLIND, CLASH, CORRUPT, MATCH, Scores
from svco.objectives.table import OBJECTIVES, make_objective
from svco.recipe.config import ObjectiveConfig
from svco.recipe.read import field_docs

B = 0.1
TOKENS = torch.tensor([[7, 4], [3, 11], [5, 5]])
M, N, C, X = MATCH, BLIND, CLASH, CORRUPT


def ls(x):
    """−log σ(x)."""
    return math.log1p(math.exp(-x))


def m(d, s):
    """Under image s, its own response over the other one."""
    return d[s][M] - d[1 - s][C]


FORMULAS = {
    "svco": lambda d: sum(ls(B * (d[s][M] - d[s][N])) + ls(B * (d[s][N] - d[s][C])) for s in (0, 1)),
    "vco": lambda d: ls(B * (d[0][M] - d[0][N])) + ls(B * (d[0][N] - d[0][C])),
    "attend": lambda d: ls(B * (d[0][M] - d[0][N])) + ls(B * (d[1][M] - d[1][N])),
    "reject": lambda d: ls(B * (d[0][N] - d[0][C])) + ls(B * (d[1][N] - d[1][C])),
    "dpo": lambda d: ls(B * (d[0][M] - d[1][C])),
    "mdpo": lambda d: ls(B * (d[0][M] - d[1][C])) + ls(B * (d[0][M] - d[0][X])) + ls(B * d[0][M]),
    "copo": lambda d: ls(B * (d[0][M] - d[0][X])),
    "chip": lambda d: ls(B * ((d[0][M] - d[1][C]) + (d[0][M] - d[0][X]))),
    "symmpo": lambda d: (
        0.5 * (ls(B * m(d, 0)) + ls(B * m(d, 1))) + ls(B * d[0][M]) + ls(B * d[1][M]) + 1e-4 * (m(d, 0) - m(d, 1)) ** 2
    ),
    "ovip": lambda d: ls(B * (d[0][M] - d[0][N])) + ls(B * (d[0][N] - d[0][C])) + ls(B * (d[0][M] - d[1][C])),
    "icvco-single": lambda d: 0.5 * sum(1.75 * ls(B * m(d, s)) + 1.75 * ls(B * d[s][M]) for s in (0, 1)),
    "rdpo": lambda d: ls(B * (d[0][M] - d[1][C])) + ls(B * (d[0][M] - d[0][C])),
}
"""Name -> the published formula of one pair's Δ, d[side][view]."""
AT_REFERENCE = {
    "svco": (4, {(0, M): -1, (0, C): 1, (1, M): -1, (1, C): 1}),
    "vco": (2, {(0, M): -1, (0, C): 1}),
    "attend": (2, {(0, M): -1, (0, N): 1, (1, M): -1, (1, N): 1}),
    "reject": (2, {(0, N): -1, (0, C): 1, (1, N): -1, (1, C): 1}),
    "dpo": (1, {(0, M): -1, (1, C): 1}),
    "mdpo": (3, {(0, M): -3, (1, C): 1, (0, X): 1}),
    "copo": (1, {(0, M): -1, (0, X): 1}),
    "chip": (1, {(0, M): -2, (1, C): 1, (0, X): 1}),
    "symmpo": (3, {(0, M): -1.5, (1, C): 0.5, (1, M): -1.5, (0, C): 0.5}),
    "ovip": (3, {(0, M): -2, (0, C): 1, (1, C): 1}),
    "icvco-single": (3.5, {(0, M): -1.75, (1, M): -1.75, (0, C): 0.875, (1, C): 0.875}),
    "rdpo": (2, {(0, M): -2, (1, C): 1, (0, C): 1}),
}
"""Name -> (loss in units of ln 2, gradient of the policy's cells in units of β/2) where policy == reference."""
CELLS = {
    "svco": ALL_CELLS,
    "vco": {(0, M), (0, N), (0, C)},
    "attend": {(0, M), (0, N), (1, M), (1, N)},
    "reject": {(0, N), (0, C), (1, N), (1, C)},
    "dpo": {(0, M), (1, C)},
    "mdpo": {(0, M), (1, C), (0, X)},
    "copo": {(0, M), (0, X)},
    "chip": {(0, M), (1, C), (0, X)},
    "symmpo": {(0, M), (0, C), (1, M), (1, C)},
    "ovip": {(0, M), (0, N), (0, C), (1, C)},
    "icvco-single": {(0, M), (0, C), (1, M), (1, C)},
    "rdpo": {(0, M), (1, C), (0, C)},
    "sft": {(0, M), (1, M)},
}


def objective(name, **keys):
    return make_objective(ObjectiveConfig(name=name, **keys))


def scores(logps, tokens=TOKENS):
    return Scores(logps, tokens)


@pytest.fixture
def tensors():
    """(policy, reference), (3, 2, 4) float64: Δ of some ten nats."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 4, generator=generator, dtype=torch.float64) * 9 - 40 for _ in range(2)]


def test_the_table_is_the_one_tested_here_and_told_in_the_recipe():
    assert [*FORMULAS, "sft"] == list(OBJECTIVES) == list(CELLS)
    told = field_docs(ObjectiveConfig)["name"]
    assert [name for name in OBJECTIVES if f"``{name}``" not in told] == []


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradient_against_the_formula(tensors, name):
    """The gradient by central differences of the formula, not of the code."""
    policy, reference = tensors
    policy.requires_grad_()
    loss, report = objective(name)(scores(policy), scores(reference))
    loss.sum().backward()
    for p in range(3):
        delta = (policy - reference)[p].tolist()
        assert loss[p].item() == pytest.approx(FORMULAS[name](delta), rel=1e-12)
        for side in (0, 1):
            for view in range(4):
                ends = []
                for step in (1e-5, -1e-5):
                    moved = [list(row) for row in delta]
                    moved[side][view] += step
                    ends.append(FORMULAS[name](moved))
                slope = (ends[0] - ends[1]) / 2e-5
                assert policy.grad[p, side, view].item() == pytest.approx(slope, abs=1e-8)
    terms = objective(name).terms
    summed = sum(term.weight * report[f"loss/{term.key}"] for term in terms)
    assert torch.allclose(summed, loss.detach(), rtol=1e-12), "the report's terms make up the loss"
    assert {key for key in report if key.startswith("delta/")} == {
        f"delta/{side}_{('match', 'blind', 'clash', 'corrupt')[view]}" for side, view in CELLS[name]
    }
    assert not any(value.requires_grad for value in report.values())


@pytest.mark.parametrize("sides", ["first", "both"])
def test_sft_against_the_formula(tensors, sides):
    policy = tensors[0].requires_grad_()
    loss, report = objective("sft", sides=sides)(scores(policy), None)
    loss.sum().backward()
    trained = (0,) if sides == "first" else (0, 1)
    for p in range(3):
        expected = sum(-policy[p, s, M].item() / TOKENS[p, s].item() for s in trained) / len(trained)
        assert loss[p].item() == pytest.approx(expected, rel=1e-12)
        for s in (0, 1):
            slope = -1 / (TOKENS[p, s].item() * len(trained)) if s in trained else 0
            assert policy.grad[p, s].tolist() == pytest.approx([slope, 0, 0, 0])
    assert report.keys() == {f"loss/nll_{s}" for s in trained}


@pytest.mark.parametrize("name", AT_REFERENCE)
def test_value_and_gradient_at_the_reference(tensors, name):
    policy = tensors[1].clone().requires_grad_()
    loss, report = objective(name)(scores(policy), scores(tensors[1]))
    loss.sum().backward()
    value, slopes = AT_REFERENCE[name]
    assert loss.tolist() == pytest.approx([value * math.log(2)] * 3, abs=1e-12)
    for cell in ((s, v) for s in (0, 1) for v in range(4)):
        assert policy.grad[(slice(None), *cell)].tolist() == pytest.approx([slopes.get(cell, 0) * B / 2] * 3, abs=1e-15)
    assert not any(report[key].any() for key in report if key.startswith("accuracy/")), "a margin of 0 is not a win"


def test_golden_numbers():
    losses = {name: round(value * math.log(2), 4) for name, (value, _) in AT_REFERENCE.items()}
    assert (losses["svco"], losses["vco"], losses["mdpo"], losses["dpo"]) == (2.7726, 1.3863, 2.0794, 0.6931)


def test_svco_gradient_at_the_reference_with_a_beta_for_every_term(tensors):
    """Per side (−β₁/2, (β₁−β₂)/2, β₂/2) over match, blind, clash."""
    policy = tensors[0].clone().requires_grad_()
    attend, reject = (0.1, 0.3), (0.2, 0.5)
    objective("svco", beta_attend=attend, beta_reject=reject)(scores(policy), scores(tensors[0]))[0].sum().backward()
    for side, (b1, b2) in enumerate(zip(attend, reject)):
        expected = [-b1 / 2, (b1 - b2) / 2, b2 / 2, 0]
        assert policy.grad[:, side].tolist() == pytest.approx([pytest.approx(expected)] * 3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_raises_the_own_image_and_lowers_the_wrong_one(tensors, name):
    """Signs away from the reference too: match never falls; the other image's and the corrupted one's cells never rise."""
    policy = (tensors[1] + 0.1 * tensors[0]).requires_grad_()
    objective(name)(scores(policy), scores(tensors[1]))[0].sum().backward()
    for side, view in CELLS[name]:
        slopes = policy.grad[:, side, view]
        if view == M:
            assert (slopes < 0).all()
        elif view in (C, X):
            assert (slopes > 0).all()


@pytest.mark.parametrize("sides", ["auto", "first", "both"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_cells_are_those_the_loss_depends_on_and_no_others_are_read(tensors, name, sides):
    made = objective(name, sides=sides)
    if sides == "auto":
        assert made.cells == CELLS[name]
    declared = torch.zeros(2, 4, dtype=torch.bool)
    for cell in made.cells:
        declared[cell] = True
    policy, reference = (t.clone().requires_grad_() for t in tensors)
    whole = made(scores(policy), scores(reference))[0]
    whole.sum().backward()
    assert ((policy.grad != 0).any(0) == declared).all(), "each declared cell matters, no other does"
    assert made.needs_reference is (name != "sft") is (reference.grad is not None)
    holed, held = (torch.where(declared, t.detach(), torch.nan).requires_grad_() for t in (policy, reference))
    loss = made(scores(holed), scores(held))[0]
    loss.sum().backward()
    assert torch.equal(loss, whole)
    assert torch.equal(holed.grad[:, declared], policy.grad[:, declared])
    assert not holed.grad[:, ~declared].any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_names_of_the_sides_mean_nothing_when_both_are_trained(tensors, name):
    flipped, tokens = [t.flip(1) for t in tensors], TOKENS.flip(1)

    def loss(sides, tensors, tokens):
        return objective(name, sides=sides)(*(scores(t, tokens) for t in tensors))[0]

    assert torch.allclose(loss("both", flipped, tokens), loss("both", tensors, TOKENS), rtol=1e-13)
    assert not torch.allclose(loss("first", flipped, tokens), loss("first", tensors, TOKENS)), "one side is one side"


SHIFTS = {
    "all views of response 0": (lambda t: t[:, 0], {"svco", "vco", "attend", "reject", "copo"}),
    "both responses under image 0": (lambda t: (t[:, 0, M], t[:, 1, C]), {"dpo"}),
}
"""What moves by a constant -> the objectives that cannot tell."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_shifts(tensors, name):
    """What favours neither image (or neither response) changes nothing, for those objectives and for no others."""
    policy, reference = tensors
    loss = objective(name)(scores(policy), scores(reference))[0]
    if name != "sft":
        both = objective(name)(scores(policy + 3.7), scores(reference + 3.7))[0]
        assert torch.allclose(both, loss, rtol=1e-12), "only policy minus reference counts"
    for part, blind_to_it in SHIFTS.values():
        moved = policy.clone()
        for cells in (part(moved),) if torch.is_tensor(part(moved)) else part(moved):
            cells += 3.7
        same = torch.allclose(objective(name)(scores(moved), scores(reference))[0], loss, rtol=1e-12)
        # Objectives that do not read these cells at all cannot tell either.
        touched = {(0, M), (0, N), (0, C), (0, X)} if "svco" in blind_to_it else {(0, M), (1, C)}
        assert same is (name in blind_to_it or not CELLS[name] & touched)


def test_unknown_objective_lists_the_known():
    with pytest.raises(UserError, match=r"'svoc'; known objectives: svco, vco, .*sft"):
        objective("svoc")

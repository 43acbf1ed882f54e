"""What a recipe may change of an objective, each against its formula; and what it may not."""

import math

import pytest
import torch

from svco.basics.errors import UserError
from svco.basics.views import BLIND as N
from svco.basics.views import CLASH as C
from svco.basics.views import CORRUPT as X
from svco.basics.views import MATCH as M
from svco.basics.views import Scores
from svco.objectives.table import OBJECTIVES, make_objective
from svco.recipe.config import ObjectiveConfig
from svco.recipe.paper import deviations
from svco.recipe.read import load_recipe

TOKENS = torch.tensor([[7, 4], [3, 11]])
GENERATOR = torch.Generator().manual_seed(1)
POLICY, REFERENCE = (torch.randn(2, 2, 4, generator=GENERATOR, dtype=torch.float64) * 6 - 30 for _ in range(2))


def ls(x):
    return math.log1p(math.exp(-x))


def cdpo(x, e):
    return (1 - e) * ls(x) + e * ls(-x)


def ipo(h, b):
    return (h - 1 / (2 * b)) ** 2


def loss_of(**keys):
    return make_objective(ObjectiveConfig(**keys))(Scores(POLICY, TOKENS), Scores(REFERENCE, TOKENS))[0].tolist()


FORMULAS = [
    (
        {"name": "svco", "beta_attend": (0.3, 0.2), "weight_reject": (2.0, 0.5), "beta_reject": (0.7,)},
        lambda d, n, p: (
            ls(0.3 * (d[0][M] - d[0][N]))
            + ls(0.2 * (d[1][M] - d[1][N]))
            + 2 * ls(0.7 * (d[0][N] - d[0][C]))
            + 0.5 * ls(0.7 * (d[1][N] - d[1][C]))
        ),
    ),
    (
        {
            "name": "mdpo",
            "beta": 0.2,
            "beta_anchor": (0.4,),
            "delta": 0.5,
            "image_negative": "clash",
            "weight_text": (3.0, 1.0),
        },
        lambda d, n, p: 3 * ls(0.2 * (d[0][M] - d[1][C])) + ls(0.2 * (d[0][M] - d[0][C])) + ls(0.4 * d[0][M] - 0.5),
    ),
    (
        {"name": "mdpo", "sides": "both", "beta_image": (0.2, 0.3), "weight_anchor": (1.0, 0.0)},
        lambda d, n, p: (
            0.5
            * (
                ls(0.1 * (d[0][M] - d[1][C]))
                + ls(0.1 * (d[1][M] - d[0][C]))
                + ls(0.2 * (d[0][M] - d[0][X]))
                + ls(0.3 * (d[1][M] - d[1][X]))
                + ls(0.1 * d[0][M])
            )
        ),
    ),
    (
        {"name": "dpo", "sides": "both", "label_smoothing": 0.1},
        lambda d, n, p: 0.5 * (cdpo(0.1 * (d[0][M] - d[1][C]), 0.1) + cdpo(0.1 * (d[1][M] - d[0][C]), 0.1)),
    ),
    (
        {"name": "mdpo", "label_smoothing": 0.2, "image_negative": "clash"},
        lambda d, n, p: cdpo(0.1 * (d[0][M] - d[1][C]), 0.2) + cdpo(0.1 * (d[0][M] - d[0][C]), 0.2) + ls(0.1 * d[0][M]),
    ),
    (
        {"name": "svco", "link": "ipo", "beta_reject": (0.4,)},
        lambda d, n, p: sum(ipo(d[s][M] - d[s][N], 0.1) + ipo(d[s][N] - d[s][C], 0.4) for s in (0, 1)),
    ),
    (
        {"name": "icvco-single", "link": "ipo", "beta": 0.3},
        lambda d, n, p: 0.5 * 1.75 * sum(ipo(d[s][M] - d[1 - s][C], 0.3) + ls(0.3 * d[s][M]) for s in (0, 1)),
    ),
    (
        {"name": "dpo", "length_normalised": True},
        lambda d, n, p: ls(0.1 * (d[0][M] / n[0] - d[1][C] / n[1])),
    ),
    (
        {"name": "symmpo", "length_normalised": True, "weight_margin": 2.0, "delta": -1.0},
        lambda d, n, p: (
            0.5 * ls(0.1 * (d[0][M] / n[0] - d[1][C] / n[1]))
            + 0.5 * ls(0.1 * (d[1][M] / n[1] - d[0][C] / n[0]))
            + ls(0.1 * d[0][M] / n[0] + 1.0)
            + ls(0.1 * d[1][M] / n[1] + 1.0)
            + 2e-4 * ((d[0][M] / n[0] - d[1][C] / n[1]) - (d[1][M] / n[1] - d[0][C] / n[0])) ** 2
        ),
    ),
    (
        {"name": "vco", "nll": 0.3},
        lambda d, n, p: ls(0.1 * (d[0][M] - d[0][N])) + ls(0.1 * (d[0][N] - d[0][C])) - 0.3 * p[0][M] / n[0],
    ),
    (
        {"name": "attend", "nll": 0.3},
        lambda d, n, p: (
            sum(ls(0.1 * (d[s][M] - d[s][N])) for s in (0, 1)) - 0.15 * p[0][M] / n[0] - 0.15 * p[1][M] / n[1]
        ),
    ),
    (
        {"name": "chip", "image_negative": "clash", "beta_image": (0.05,)},
        lambda d, n, p: ls(0.05 * (d[0][M] - d[1][C] + d[0][M] - d[0][C])),
    ),
    ({"name": "symmpo", "sides": "first"}, lambda d, n, p: 0.5 * ls(0.1 * (d[0][M] - d[1][C])) + ls(0.1 * d[0][M])),
]


@pytest.mark.parametrize(
    ("keys", "formula"), FORMULAS, ids=lambda x: "-".join(map(str, x)) if isinstance(x, dict) else ""
)
def test_options_against_their_formulas(keys, formula):
    expected = [
        formula((POLICY - REFERENCE)[i].tolist(), TOKENS[i].tolist(), POLICY[i].tolist()) for i in range(len(POLICY))
    ]
    assert loss_of(**keys) == pytest.approx(expected, rel=1e-11)
    plain = loss_of(name=keys["name"])
    assert loss_of(**keys) != pytest.approx(plain, rel=1e-3), "the options do something"


def test_one_objective_is_another_with_other_keys():
    """The table's rows hang together."""
    assert loss_of(name="vco", sides="both") == loss_of(name="svco")
    assert loss_of(name="svco", sides="first") == loss_of(name="vco")
    assert loss_of(name="svco", weight_attend=(1, 0), weight_reject=(1, 0)) == loss_of(name="vco")
    assert loss_of(name="svco", weight_reject=(0, 0)) == loss_of(name="attend")
    assert loss_of(name="mdpo", weight_text=(0, 0), weight_anchor=(0, 0)) == loss_of(name="copo")
    rdpo = loss_of(name="mdpo", image_negative="clash", weight_anchor=(0, 0))
    assert rdpo == loss_of(name="rdpo") != loss_of(name="mdpo", weight_anchor=(0, 0))


def test_a_dropped_term_takes_its_cells_along():
    def cells(**keys):
        return make_objective(ObjectiveConfig(**keys)).cells

    assert cells(weight_attend=(1.0, 0.0), weight_reject=(0.0, 0.0)) == {(0, M), (0, N)}
    assert cells(weight_attend=(0.0, 0.0)) == {(s, v) for s in (0, 1) for v in (N, C)}
    assert cells(name="mdpo", image_negative="clash") == {(0, M), (1, C), (0, C)}
    assert cells(name="mdpo", weight_image=(0.0, 0.0)) == {(0, M), (1, C)}
    assert cells(name="reject", nll=1.0) == {(s, v) for s in (0, 1) for v in (M, N, C)}


def test_one_number_is_both_sides_and_two_are_one_each():
    assert load_recipe(None, ["objective.beta_text=0.5"]).objective.betas_of("text") == (0.5, 0.5)
    assert load_recipe(None, ["objective.beta_text=[0.5, 2]"]).objective.betas_of("text") == (0.5, 2)
    assert load_recipe(None, ["objective.beta=3"]).objective.betas_of("text") == (3, 3)
    assert load_recipe(None, ["objective.weight_text=2"]).objective.weights_of("text") == (2, 2)


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"objective.beta_{term}=0", f"weight_{term}"] for term in ("text", "image", "anchor", "attend", "reject")),
        ["objective.beta=-1", "must be above 0"],
        ["objective.beta_text=[0.1, 0]", "must be above 0"],
        ["objective.beta_text=[1, 2, 3]", "one number, or two"],
        ["objective.beta=.nan", "must be above 0"],
        ["objective.weight_text=-1", "at least 0"],
        ["objective.nll=-1", "at least 0"],
        ["objective.weight_margin=-1", "at least 0"],
        ["objective.label_smoothing=0.5", "below 0.5"],
        ["objective.label_smoothing=-0.1", "below 0.5"],
        ["objective.delta=.inf", "finite"],
        ["objective.sides=second", "auto, first, both"],
        ["objective.link=hinge", "sigmoid, ipo"],
        ["objective.image_negative=blind", "corrupt, clash"],
        ["objective.symmetric=true", "sides: both"],
    ],
)
def test_recipes_that_mean_nothing(overrides):
    override, says = overrides
    with pytest.raises(UserError, match=says):
        load_recipe(None, [override])


IDLE = [
    {"name": "sft", "link": "ipo"},
    {"name": "sft", "beta": 0.2},
    {"name": "sft", "label_smoothing": 0.1},
    {"name": "sft", "length_normalised": True},
    {"name": "sft", "nll": 1.0},
    {"name": "svco", "beta_text": (0.2,)},
    {"name": "svco", "weight_anchor": (2.0, 2.0)},
    {"name": "svco", "image_negative": "clash"},
    {"name": "svco", "delta": 1.0},
    {"name": "svco", "beta": 0.3, "beta_attend": (0.1,), "beta_reject": (0.1,)},
    {"name": "svco", "delta": 1.0, "weight_reject": (0.0, 0.0)},
    {"name": "rdpo", "image_negative": "clash"},
    {"name": "symmpo", "sides": "first", "weight_margin": 2.0},
    {"name": "dpo", "link": "ipo", "label_smoothing": 0.1},
]


@pytest.mark.parametrize("keys", IDLE, ids=str)
def test_a_key_that_changes_nothing_is_refused(keys):
    with pytest.raises(UserError, match=f"objective.({'|'.join(list(keys)[1:])}) is .* changes nothing"):
        make_objective(ObjectiveConfig(**keys))


def test_a_key_that_would_change_something_is_not():
    """Also where it says what is so anyway, or what a dropped term would have."""
    make_objective(ObjectiveConfig(beta_attend=(0.1, 0.1), beta_reject=(0.1,)))
    make_objective(ObjectiveConfig(beta_reject=(0.3,), weight_reject=(0.0, 0.0)))
    for name in OBJECTIVES:
        make_objective(ObjectiveConfig(name=name, sides="first"))
        if name != "sft":
            make_objective(ObjectiveConfig(name=name, beta=0.3, length_normalised=True, nll=0.1, label_smoothing=0.1))


def test_the_papers_betas_are_recognised_however_they_are_written():
    base = "model.base=llava-hf/llava-1.5-7b-hf"
    for written in ("objective.beta=0.1", "objective.beta_attend=0.1", "objective.beta_reject=[0.1, 0.1]"):
        assert "beta" not in deviations(load_recipe(None, [base, written]), "float16").replace("optim.betas", "")
    says = deviations(load_recipe(None, [base, "objective.beta=0.3", "objective.sides=first"]), "float16")
    assert "objective.beta_attend (0.3, 0.3) (theirs (0.1, 0.1))" in says
    assert "objective.sides first (theirs auto)" in says


def test_nothing_left_to_train_on():
    with pytest.raises(UserError, match="nothing is left"):
        make_objective(ObjectiveConfig(weight_attend=(0, 0), weight_reject=(0, 0)))
    with pytest.raises(UserError, match="nothing is left"):
        make_objective(ObjectiveConfig(sides="first", weight_attend=(0, 1), weight_reject=(0, 1)))

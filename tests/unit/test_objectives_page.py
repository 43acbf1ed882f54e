"""svco/objectives/README.md: its table is the code's, and its example of a new objective runs and trains."""

import json
import math
import re

import launch
import pytest
import torch
from places import ROOT

from svco.basics.errors import UserError
from svco.basics.views import CLASH, MATCH, Scores
from svco.objectives.table import OBJECTIVES, make_objective, register
from svco.objectives.terms import Term
from svco.recipe.config import ObjectiveConfig

PAGE = (ROOT / "svco" / "objectives" / "README.md").read_text()


def test_the_table_is_the_codes():
    rows = {
        row[0].strip("` "): row
        for row in (line.split(" | ") for line in re.findall(r"^\| (`.*) \|$", PAGE, re.M))
        if len(row) == 6
    }
    assert list(rows) == list(OBJECTIVES)
    zeros = Scores(torch.zeros(1, 2, 4, dtype=torch.float64), torch.ones(1, 2, dtype=torch.int64))
    for name, (_, _, sides, _, value, _) in rows.items():
        entry = OBJECTIVES[name]
        assert sides.split(",")[0] == entry.sides
        if entry.sides == "both":
            assert {"summed": "sum", "mean": "mean"}[sides.split(", ")[1]] == entry.combine
        if name != "sft":
            factor, _, number = value.replace("ln 2", "").partition("=")
            loss = make_objective(ObjectiveConfig(name=name))(zeros, zeros)[0].item()
            assert loss == pytest.approx(float(factor.strip() or 1) * math.log(2))
            assert not number or round(loss, 4) == float(number)
    for key in ObjectiveConfig.__dataclass_fields__:
        assert f"`{key}`" in PAGE or key == "name", key


@pytest.fixture
def example():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    before = dict(OBJECTIVES)
    yield code
    OBJECTIVES.clear()
    OBJECTIVES.update(before)


def test_the_example_computes_what_it_says(example):
    exec(compile(example, "my_train.py", "exec"), {"__name__": "my_train"})
    generator = torch.Generator().manual_seed(3)
    policy, reference = (torch.randn(4, 2, 3, generator=generator, dtype=torch.float64) * 9 for _ in range(2))
    made = make_objective(ObjectiveConfig(name="own-image", beta_image=(0.3,), weight_anchor=(1.0, 0.5)))
    assert made.cells == {(s, v) for s in (0, 1) for v in (MATCH, CLASH)}
    loss = made(*(Scores(t, torch.ones(4, 2)) for t in (policy, reference)))[0]
    for p, d in enumerate((policy - reference).tolist()):
        hinges = sum(max(0, 1 - 0.3 * (d[s][MATCH] - d[s][CLASH])) for s in (0, 1))
        anchors = sum((1, 0.5)[s] * math.log1p(math.exp(-0.1 * d[s][MATCH])) for s in (0, 1))
        assert loss[p].item() == pytest.approx(hinges + anchors, rel=1e-12)
    with pytest.raises(UserError, match="objective.link is ipo, which changes nothing"):
        make_objective(ObjectiveConfig(name="own-image", link="ipo"))


def test_the_example_trains(example, tmp_path):
    (tmp_path / "my_train.py").write_text(example)
    settings = ("objective.name=own-image", f"run.root={tmp_path}", "run.name=run", "data.heldout=", "data.validation=")
    short = ("optim.steps=1", "optim.global_batch=2", "data.workers=0")
    assert launch.here(tmp_path / "my_train.py", "--ds", "none", *settings, *short) == 0
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == pytest.approx(2 + 2 * math.log(2), rel=1e-5)


def test_registering_is_checked(example):
    with pytest.raises(UserError, match="'svco' is registered already"):
        register("svco", "", sides="both", combine="sum")
    with pytest.raises(UserError, match="combine is 'product'"):
        register("x", "", sides="both", combine="product")
    register("twice", "", sides="first", combine="sum")(lambda side, config: [Term("a", side, {(0, 0): 1})] * 2)
    with pytest.raises(UserError, match="two terms of one name"):
        make_objective(ObjectiveConfig(name="twice"))

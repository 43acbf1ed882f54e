"""launchers/example.py prints what plain transformers and peft compute; and ``svco.train`` under DeepSpeed is the one without."""

import json
import math
import re
import subprocess
import sys

import launch
import oracle
import pytest
import torch
from peft import PeftModel
from PIL import Image, ImageDraw
from places import BASE, ROOT

import svco
from svco.basics.errors import UserError
from svco.basics.views import BLIND, CLASH, MATCH
from svco.recipe.config import OptimConfig


def tables(out):
    """The (2, 3) tables of the example's output, in order."""
    rows = [[float(number) for number in row.split()] for row in re.findall(r"^answer \d +(.*)$", out, re.M)]
    return torch.tensor(rows, dtype=torch.float64).view(-1, 2, 3)


def test_the_example_prints_what_the_oracle_computes(tmp_path):
    out = launch.output(None, "launchers/example.py", f"run.root={tmp_path}")
    before, gradient, after = tables(out)

    images = [Image.new("RGB", (48, 48), "lightgrey") for _ in (0, 1)]
    for image, colour in zip(images, ("blue", "yellow")):
        ImageDraw.Draw(image).rectangle((14, 14, 34, 34), fill=colour)
    answers = ["The square in this picture is blue.", "The square in this picture is yellow."]
    pair = svco.Pair.of("What colour is the square?", answers, images)
    (folder,) = tmp_path.glob("see-it-*")
    processor, model = oracle.load(BASE)
    with torch.no_grad():
        assert torch.allclose(oracle.pair_logps(model, processor, pair), before, atol=2e-3)
        tuned = PeftModel.from_pretrained(model, folder / "adapter").double()
        assert torch.allclose(oracle.pair_logps(tuned, processor, pair), after, atol=2e-3)

    assert f"svco: loss {4 * math.log(2):.4f}" in out
    beta = svco.Config().objective.beta
    for view, value in ((MATCH, -beta / 2), (BLIND, 0.0), (CLASH, beta / 2)):
        assert gradient[:, view].tolist() == pytest.approx([value, value], abs=1e-4)
    losses = [float(loss) for loss in re.findall(r"^step \d: loss (.*)$", out, re.M)]
    logged = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 5 and losses == pytest.approx(logged, abs=1e-4)
    assert losses[0] == 1.0 and losses[-1] < 0.97  # the hinge at the reference, and lower


SCRIPT = """
import json, sys
import svco, torch
from svco.basics.errors import UserError

root, few = sys.argv[1], ["optim.steps=2", "optim.global_batch=4", "optim.lr=1e-2"]
with open("ds_configs/zero3.json") as file:
    ds = json.load(file)

def losses(name, **how):
    folder = svco.train(svco.load_recipe(None, [*few, f"run.root={root}", f"run.name={name}"]), **how)
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

linear = torch.nn.functional.linear
found = losses("plain"), losses("sharded", ds=ds), losses("plain-again")
try:
    losses("again", ds="ds_configs/zero3.json")
except UserError as error:
    print(json.dumps([found, str(error), linear is torch.nn.functional.linear]))
"""


def test_runs_of_one_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    found, refused, torchs_own = json.loads(launch.output(None, tmp_path / "script.py", tmp_path).splitlines()[-1])
    plain, sharded, again = found
    assert torchs_own and plain == again
    assert sharded == pytest.approx(plain, rel=1e-5)
    assert plain[0] != plain[1]
    assert "Start a process for each such run" in refused


def test_a_mistake_is_one_paragraph():
    done = subprocess.run(
        [sys.executable, "launchers/example.py", "optim.learning_rate=1"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 2
    assert "unknown key 'optim.learning_rate'" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(UserError, match="optim.lr"):
        svco.train(svco.Config(optim=OptimConfig(lr=-1.0)))

"""A pair whose loss is not finite: the step is skipped in every engine alike, the pair is named, and no weight is touched."""

import json
import shutil
import sys

import launch
import pytest
import torch
from places import ROOT, SHARDS
from poison import poisoned_base
from safetensors.torch import load_file

from svco.objectives.table import OBJECTIVES

OPTIONS = (
    "optim.steps=6",
    "optim.global_batch=8",
    "checkpoint.every=2",
    "checkpoint.keep=0",
    "data.validation=",
    "data.heldout=",
    "evaluate.every=0",
    "optim.max_skipped_steps=6",
    "optim.max_skipped_fraction=1",
)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """(base whose embedding of one rare word is NaN, head apart; keys of the training pairs that have the word)."""
    folder = tmp_path_factory.mktemp("base") / "poisoned"
    return poisoned_base(folder, str(SHARDS / "train-{000000..000007}.tar"), 40, 200)


@pytest.fixture(scope="module")
def plain(poisoned, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    launch.alone(*OPTIONS, f"model.base={poisoned[0]}", f"run.root={root}", "run.name=plain")
    return root / "plain"


ODD = ("objective.name=odd-gradient", "optim.steps=3")
"""Their loss is finite and the gradient of some pairs is not."""


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    import odd_gradient  # which registers the objective, here for as long as this takes

    assert odd_gradient.LIMIT > 0, "so the first step is taken"
    launch.alone(*OPTIONS, *ODD, f"run.root={root}", "run.name=plain")
    del OBJECTIVES["odd-gradient"], sys.modules["odd_gradient"]
    return root / "plain"


def told(run):
    lines = (run / "bad_steps.jsonl").read_text().splitlines()
    return {line["step"]: sorted(pair["key"] for pair in line["pairs"]) for line in map(json.loads, lines)}


def test_the_pairs_are_named_and_nothing_else_is_touched(plain, poisoned):
    skipped, lines = told(plain), launch.training(plain)
    assert skipped and set(skipped) != set(range(1, 7)), "some steps are skipped and some are not"
    assert {key for keys in skipped.values() for key in keys} <= poisoned[1]
    assert {step for step, line in lines.items() if line["grad_norm"] is not None} == set(range(1, 7)) - set(skipped)
    assert lines[max(lines)]["skipped"] == len(skipped)
    for file in [plain / "adapter" / "adapter_model.safetensors", *plain.glob("checkpoints/*/trainable.safetensors")]:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file
    assert launch.strictly_json(plain) >= {"metrics.jsonl", "bad_steps.jsonl", "state.json", "MANIFEST.json"}


def test_what_is_measured_and_is_no_number_is_null(poisoned, tmp_path):
    """Held-out pairs that have the word: their NaN is in what a run and ``svco eval`` measure, and not in their JSON."""
    few = ("optim.steps=1", "optim.global_batch=1", "evaluate.max_pairs=96", "data.validation=", "checkpoint.keep=1")
    launch.alone(*few, "evaluate.pictures=0", f"model.base={poisoned[0]}", f"run.root={tmp_path}", "run.name=one")
    assert launch.strictly_json(tmp_path / "one") >= {"heldout.json", "adapter_config.json"}
    heldout = json.loads((tmp_path / "one" / "heldout.json").read_text())
    assert heldout["after"]["perplexity_match"] is None, "the control: there was a NaN to write"
    assert "nan" in (tmp_path / "one" / "adapter" / "README.md").read_text()
    scored = ("--set", f"heldout={SHARDS / 'heldout-{000000..000001}.tar'}", "--pairs", "96", "--workers", "0")
    assert launch.here("eval.py", "--base", poisoned[0], "--out", tmp_path / "eval", *scored) == 0
    assert launch.strictly_json(tmp_path / "eval") == {"eval.json"}
    assert (
        json.loads((tmp_path / "eval" / "eval.json").read_text())["sets"]["heldout"]["perplexity_match"]["value"]
        is None
    )


def test_the_weights_are_those_of_the_steps_that_were_taken(plain):
    """A step that is skipped leaves weights, moments and Adam's count as they were."""
    states = {
        step: load_file(plain / "checkpoints" / f"step-{step:06d}" / "trainable.safetensors") for step in (2, 4, 6)
    }
    skipped = told(plain)
    for first, last in ((2, 4), (4, 6)):
        same = all(torch.equal(states[first][name], states[last][name]) for name in states[first])
        assert same == all(step in skipped for step in range(first + 1, last + 1))


def test_a_gradient_alone_is_found_by_pair_too(odd):
    assert set(told(odd)) == {2, 3} and all(0 < len(keys) < 8 for keys in told(odd).values())
    pairs = [pair for line in (odd / "bad_steps.jsonl").read_text().splitlines() for pair in json.loads(line)["pairs"]]
    assert all(pair["terms"] == {"gradient": "nan"} for pair in pairs)


def test_deepspeed_does_the_same(plain, odd, poisoned, tmp_path):
    own = (*OPTIONS, f"run.root={tmp_path}", "data.workers=0")
    wanted = (*own, f"model.base={poisoned[0]}")
    launch.runs(
        2,
        (ROOT / "ds_configs" / "zero3.json", [*wanted, "run.name=zero3"]),
        (ROOT / "ds_configs" / "zero2.json", [*wanted, "run.name=zero2", "model.dtype=bfloat16"]),
        (ROOT / "ds_configs" / "zero3.json", [*own, *ODD, "run.name=odd3"]),
        (ROOT / "ds_configs" / "zero2.json", [*own, *ODD, "run.name=odd2"]),
    )
    assert told(tmp_path / "odd3") == told(tmp_path / "odd2") == told(odd)
    for name in ("zero3", "zero2"):
        assert told(tmp_path / name) == told(plain), name
    ours, theirs = (launch.training(run) for run in (plain, tmp_path / "zero3"))
    assert {s: ours[s].get("loss") for s in ours} == pytest.approx({s: theirs[s].get("loss") for s in theirs}, rel=1e-5)


def test_too_many_end_the_run_with_what_is_sound(poisoned, tmp_path, capsys):
    """A base that is not finite at all: no step is taken, and nothing is left that looks like a result."""
    base = shutil.copytree(poisoned[0], tmp_path / "base")
    from safetensors.torch import save_file

    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight") and "language_model" in name)
    weights[name][:] = float("nan")
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    options = (
        "optim.steps=9",
        *OPTIONS[1:-2],
        "optim.max_skipped_steps=3",
        f"model.base={base}",
        f"run.root={tmp_path}",
    )
    code = launch.here("train.py", "--ds", "none", "data.workers=0", *options, "run.name=all")
    error = " ".join(capsys.readouterr().err.split())
    assert code == 2 and "4 steps in a row and 4 in all were skipped" in error
    assert "the last checkpoint is step-000002, of weights that are sound" in error
    assert not (tmp_path / "all" / "adapter").exists()
    assert len(told(tmp_path / "all")) == 4

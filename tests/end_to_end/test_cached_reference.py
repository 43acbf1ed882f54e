"""A reference computed once gives the training that a live one gives; it is found again, finished, and never mistaken."""

import json
import shutil

import numpy as np
import pytest
from places import BASE
from safetensors import safe_open
from safetensors.numpy import save_file

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.recipe.read import load_recipe
from svco.run.train import Launch, run


@pytest.fixture
def train(tmp_path, shards):
    """(name, overrides) -> the training loss of each step of a run on 20 pairs, in this process."""

    def go(name, *overrides):
        config = load_recipe(
            None,
            [
                f"model.base={BASE}",
                f"data.train={shards}",
                f"data.cache_dir={tmp_path / 'cache'}",
                f"run.root={tmp_path / 'runs'}",
                f"run.name={name}",
                *[
                    "data.workers=0",
                    "data.validation=",
                    "data.allow_overlap=all",
                    "optim.lr=1e-3",
                    "optim.steps=5",
                    "optim.global_batch=6",
                ],
                *overrides,
            ],
        )
        run(Launch(config, "test", None, "none"), World())
        lines = [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    return go


def caches(tmp_path):
    return sorted((tmp_path / "runs" / "references").glob("*"))


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_cached_is_live(train, tmp_path, shards, tune):
    more = [f"model.tune={tune}", f"data.heldout={shards}", "evaluate.pictures=0"]
    live = train("live", *more)
    cached = train("cached", *more, "model.reference=cached")
    # The reference comes from another pack: float32's last digits differ.
    assert cached == pytest.approx(live, rel=1e-5)
    assert abs(live[-1] - live[0]) > 0.01
    ours, theirs = (json.loads((tmp_path / "runs" / n / "heldout.json").read_text()) for n in ("cached", "live"))
    for when, tolerance in (("before", 1e-4), ("after", 1e-2)):
        assert ours[when] == pytest.approx(theirs[when], rel=tolerance)
    assert ours["before"] != ours["after"]
    (file,) = caches(tmp_path)  # training and held-out pairs are the same here: one file
    written = file.stat().st_mtime_ns
    assert train("again", *more, "model.reference=cached") == cached
    assert [p.stat().st_mtime_ns for p in caches(tmp_path)] == [written], "computed once"
    train("other", *more, "model.reference=cached", "data.max_text_tokens=100", "optim.steps=1")
    assert len(caches(tmp_path)) == 2, "another truncation is another reference"


def test_cached_is_live_under_corrupted_images(train, tmp_path, shards):
    """Another corruption is another reference; that of an objective which reads none is as it was."""
    more = ["objective.name=mdpo", f"data.heldout={shards}", "evaluate.pictures=2", "model.reference=cached"]
    live = train("live", *more[:-1], "optim.steps=3")
    assert train("cached", *more, "optim.steps=3") == pytest.approx(live, rel=1e-5)
    ours, theirs = (json.loads((tmp_path / "runs" / n / "heldout.json").read_text()) for n in ("cached", "live"))
    assert {"perplexity_corrupt", "match_minus_corrupt"} <= ours["before"].keys()
    assert ours["before"] == pytest.approx(theirs["before"], rel=1e-4)
    (file,) = caches(tmp_path)
    with safe_open(file, "np") as stored:
        assert stored.get_tensor("logps").shape == (20, 2, 4)
        assert (stored.get_tensor("logps") < 0).all()
        facts = json.loads(stored.metadata()["facts"])
    assert (facts["views"][3], json.loads(facts["corruption"])["kind"]) == ("corrupt", "crop")
    quick = ["model.reference=cached", "optim.steps=1"]
    noise = train("noise", "objective.name=mdpo", *quick, "corrupt.kind=noise", "optim.lr=0")
    assert len(caches(tmp_path)) == 2, "another kind is another file"
    assert noise[0] == pytest.approx(live[0], abs=1e-6), "Δ is 0 under every corruption before the first step"
    train("six", *quick, "corrupt.kind=zero")
    told = []
    for cache in caches(tmp_path):
        with safe_open(cache, "np") as stored:
            told.append(json.loads(stored.metadata()["facts"]))
    (six,) = [facts for facts in told if facts["corruption"] == "none"]
    assert six["views"] == ["match", "blind", "clash"], "as ever, for objectives that read no corrupted image"


def test_a_killed_computation_is_finished(train, tmp_path):
    train("first", "model.reference=cached", "optim.steps=1")
    (file,) = caches(tmp_path)
    with safe_open(file, "np") as stored:
        logps, done, facts = stored.get_tensor("logps"), stored.get_tensor("done"), stored.metadata()
    assert done.all()
    assert (logps < 0).all()
    half, mark = logps.copy(), np.float32(-7)
    half[7:], half[2, 0, 0] = 0, mark
    save_file({"logps": half, "done": np.arange(20) < 7}, file, {"facts": facts["facts"]})
    train("second", "model.reference=cached", "optim.steps=1")
    with safe_open(file, "np") as stored:
        again = stored.get_tensor("logps")
    assert again[2, 0, 0] == mark, "what was done is not done again"
    again[2, 0, 0] = logps[2, 0, 0]
    assert np.allclose(again, logps, rtol=1e-5)


def test_objectives_without_a_reference_still_compare_held_out_pairs(train, tmp_path, shards):
    losses = train("sft", "objective.name=sft", f"data.heldout={shards}", "evaluate.pictures=0")
    assert losses[-1] < losses[0]
    summary = json.loads((tmp_path / "runs" / "sft" / "heldout.json").read_text())
    assert summary["before"]["perplexity_match"] > summary["after"]["perplexity_match"] > 1
    assert len(caches(tmp_path)) == 1, "the held-out pairs' only"


def test_a_resumed_full_run_never_takes_itself_for_the_reference(train, tmp_path):
    more = ["model.tune=full", "model.reference=cached", "checkpoint.every=2"]
    whole = train("whole", *more)
    shutil.rmtree(tmp_path / "runs" / "whole" / "checkpoints" / "step-000005")
    (cache,) = caches(tmp_path)
    cache.rename(tmp_path / "kept")
    with pytest.raises(UserError, match="no longer has the base model"):
        train("whole", *more, "run.resume=auto")
    (tmp_path / "kept").rename(cache)
    assert train("whole", *more, "run.resume=auto") == whole

"""The README's command, and what it leaves behind, checked with plain transformers and peft."""

import json
import re
import subprocess
import sys

import launch
import numpy as np
import pytest
from places import BASE, ROOT

from svco.scores.kept import KeptScores

CHECK = """
import json, sys
import numpy as np
import torch
from peft import PeftModel
import oracle
from svco.data.shards import ShardSet

base, adapter, spec, count, out = sys.argv[1:]
shards = ShardSet.open(spec)
pairs = [shards.read(i) for i in range(int(count))]
processor, model = oracle.load(base, torch.float32)
tuned = PeftModel.from_pretrained(oracle.load_model(base, torch.float32), adapter)
scores = {"before": [], "after": []}
with torch.no_grad():
    for pair in pairs:
        scores["before"].append(oracle.pair_logps(model, processor, pair).tolist())
        scores["after"].append(oracle.pair_logps(tuned, processor, pair).tolist())
json.dump(scores, open(out, "w"))
"""


CHECKED = 48
"""Of the 256 held-out pairs, those that plain transformers and peft score too, one after another."""


def test_table_progress_and_files(demo):
    folder, out, err = demo
    assert "held-out pairs, before and after training (256 pairs)" in out
    assert {"heldout.json", "metrics.jsonl", "state.json", "MANIFEST.json", "versions.json"} <= launch.strictly_json(
        folder
    )
    summary = json.loads((folder / "heldout.json").read_text())
    assert summary["pairs"] == 256
    assert f"{summary['after']['pair_accuracy']:.1%}" in out
    assert re.search(r"training: +100%", err), "a progress bar"
    assert "pairs/s" in err
    for name in (
        "recipe.yaml",
        "ds_config.json",
        "versions.json",
        "metrics.jsonl",
        "adapter/adapter_model.safetensors",
        "samples.png",
        "tensorboard",
        "checkpoints/latest",
        "state.json",
    ):
        assert (folder / name).exists(), name
    # Of all that comes from outside there is nothing to be read.
    foreign = r"[Ww]arning|\[(INFO|WARNING|ERROR)\]|built successfully|Invalidate trace cache|Traceback"
    assert not [line for line in (out + err).splitlines() if re.search(foreign, line)]


def test_the_effect_is_real(demo):
    """S-VCO's own aims, on pairs it never saw: far beyond two standard errors (3 points each) of 256 pairs."""
    summary = json.loads((demo[0] / "heldout.json").read_text())
    before, after = summary["before"], summary["after"]
    assert after["pair_accuracy"] > before["pair_accuracy"] + 0.10
    assert after["match_minus_blind"] > before["match_minus_blind"] + 0.5
    assert after["blind_minus_clash"] > before["blind_minus_clash"] + 0.5
    for kind, part in summary["by_contrast"].items():
        assert 0.10 <= part["before"] <= 0.75, f"{kind}: the base must be neither at chance nor at the ceiling"


def test_metrics_tell_the_whole_step(demo):
    lines = launch.metrics(demo[0], timings=True)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    wanted = {
        "loss",
        "grad_norm",
        "lr",
        "epoch",
        "pairs",
        "tokens_per_second",
        "pairs_per_second",
        "memory_peak_bytes",
        *(f"seconds/{part}" for part in ("lap", "data", "forward", "backward", "step")),
        *(
            f"{kind}/{term}_{side}"
            for kind in ("loss", "margin", "accuracy")
            for term in ("attend", "reject")
            for side in (0, 1)
        ),
        *(f"delta/{side}_{view}" for side in (0, 1) for view in ("match", "blind", "clash")),
    }
    assert wanted <= steps[0].keys()
    assert steps[0]["loss"] == pytest.approx(2.772589, abs=1e-5)
    for line in steps:
        terms = sum(line[f"loss/{term}_{side}"] for term in ("attend", "reject") for side in (0, 1))
        assert line["loss"] == pytest.approx(terms, rel=1e-5)
    validations = [line for line in lines if "validation/pair_accuracy" in line]
    assert validations[-1]["step"] == steps[-1]["step"]
    # The step never waits on the loader once it has started up.
    steady = steps[5:]
    assert sum(line["seconds/data"] for line in steady) < 0.05 * sum(line["seconds/lap"] for line in steady)


def test_adapter_in_plain_transformers_and_peft(demo, tmp_path):
    """A fresh process without svco's model code: the figures of heldout.json, from the adapter on disk."""
    from safetensors.torch import load_file

    folder = demo[0]
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 4 * 7 * 2
    assert all(0 not in tensor.shape for tensor in stored.values())
    assert all(tensor.abs().sum() > 0 for tensor in stored.values()), "B has left 0"
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny_llava"
    script, out = tmp_path / "check.py", tmp_path / "scores.json"
    script.write_text(CHECK)
    spec = str(ROOT / "data_shards" / "heldout-{000000..000001}.tar")
    subprocess.run(
        [sys.executable, str(script), str(BASE), str(folder / "adapter"), spec, str(CHECKED), str(out)],
        check=True,
        env=launch.ENVIRONMENT | {"PYTHONPATH": str(ROOT / "tests")},
        cwd=tmp_path,
        timeout=600,
    )
    scores = json.loads(out.read_text())
    # heldout.npz has each pair's six log-probabilities, and the figures of heldout.json are those of all pairs.
    kept = KeptScores.load(folder)
    assert kept.index.tolist() == list(range(256))
    for when in ("before", "after"):
        np.testing.assert_allclose(getattr(kept, when)[:CHECKED], scores[when], atol=1e-4)
        summary = json.loads((folder / "heldout.json").read_text())[when]
        told = getattr(kept, when)
        right = (told[:, 0, 0] > told[:, 1, 2]) & (told[:, 1, 0] > told[:, 0, 2])
        assert right.mean() == pytest.approx(summary["pair_accuracy"])
        for name, (a, b) in {"match_minus_blind": (0, 1), "blind_minus_clash": (1, 2)}.items():
            assert (told[..., a] - told[..., b]).mean() == pytest.approx(summary[name], abs=1e-5)
    assert scores["before"] != scores["after"]


def test_warm_start_from_the_adapter(demo, tmp_path):
    """``lora.init_from`` begins where the adapter ended: its loss is the tuned one at once, not 4 ln 2."""
    launch.alone(
        f"run.root={tmp_path}",
        "run.name=warm",
        f"lora.init_from={demo[0] / 'adapter'}",
        "optim.steps=1",
        "data.heldout=",
        "data.validation=",
    )
    (first,) = launch.training(tmp_path / "warm").values()
    assert first["loss"] < 2.5

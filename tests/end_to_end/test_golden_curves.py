"""Curves that no change moves which is not meant to: six steps, no DeepSpeed, against files that an earlier version wrote."""

import json

import launch
import pytest
from places import ROOT

CURVES = sorted((ROOT / "tests" / "golden").glob("*.json"))
FIXED = (
    "optim.steps=6",
    "optim.global_batch=8",
    "data.validation=",
    "data.heldout=",
    "evaluate.every=0",
    "data.workers=0",
)


@pytest.mark.parametrize("file", CURVES, ids=lambda file: file.stem)
def test_the_curve_is_what_it_was(file, tmp_path):
    """To 1e-4: other processors add in another order. On the machine that wrote them every digit was the same."""
    golden = json.loads(file.read_text())
    root = f"run.root={tmp_path}"
    launch.run(None, "none", root, "run.name=now", *FIXED, *golden["overrides"])
    now = launch.metrics(tmp_path / "now")
    assert [line["step"] for line in now] == [line["step"] for line in golden["steps"]]
    for line, expected in zip(now, golden["steps"], strict=True):
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, rel=1e-4, abs=1e-5), f"step {line['step']}: {name}"

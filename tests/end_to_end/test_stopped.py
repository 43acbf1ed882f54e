"""A run that is stopped in the middle of a validation or of its held-out table makes up for it when it is continued."""

import json
import os
import signal
import threading
import time

import pytest
from places import BASE

from svco.basics.dist import World
from svco.basics.errors import Stopped
from svco.recipe.read import load_recipe
from svco.record.status import look
from svco.run.stopping import StopRequests
from svco.run.train import Launch, run


@pytest.fixture
def train(tmp_path, shards):
    """(name, overrides) -> metrics without timings of a run of 4 steps on 20 pairs, validated every 2, in this process."""

    def go(name, *overrides):
        values = {
            "model.base": BASE,
            "data.train": shards,
            "data.validation": shards,
            "data.heldout": shards,
            "data.allow_overlap": "all",
            "data.workers": 0,
            "data.cache_dir": tmp_path / "cache",
            "run.root": tmp_path / "runs",
            "run.name": name,
            "run.resume": "auto",
            "optim.lr": 1e-3,
            "optim.steps": 4,
            "optim.global_batch": 2,
            "evaluate.every": 2,
            "evaluate.pictures": 0,
        }
        config = load_recipe(None, [*(f"{key}={value}" for key, value in values.items()), *overrides])
        with StopRequests(World()) as stops:
            run(Launch(config, "test", None, "none"), World(), stops)
        lines = [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if "second" not in k and "memory" not in k} for line in lines]

    return go


@pytest.fixture
def stop_when(tmp_path):
    """(name, what, step) -> sends SIGTERM to this process once the run does ``what`` after ``step``; handlers are put back."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)

    def arm(name, doing, step):
        def wait():
            while True:
                try:
                    state = json.loads((tmp_path / "runs" / name / "state.json").read_text())
                except (OSError, ValueError):
                    state = {}
                if (state.get("doing"), state.get("step")) == (doing, step):
                    return os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.001)

        threading.Thread(target=wait, daemon=True).start()

    yield arm
    for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before):
        signal.signal(number, handler)


def test_a_validation_cut_short_is_made_up_for(train, stop_when, tmp_path):
    whole = train("whole")
    assert [line["step"] for line in whole if "validation/pair_accuracy" in line] == [2, 4]
    folder = tmp_path / "runs" / "cut"
    for step, validated in ((2, []), (4, [2])):
        stop_when("cut", "scoring pairs", step)
        with pytest.raises(Stopped, match="SIGTERM"):
            train("cut")
        assert look(folder)[1] == 75
        assert (folder / "checkpoints" / "latest").read_text() == f"step-{step:06d}"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "validation/pair_accuracy" in line] == validated
        assert not (folder / "heldout.json").exists()
    assert train("cut") == whole
    assert (folder / "heldout.json").read_text() == (tmp_path / "runs" / "whole" / "heldout.json").read_text()


def test_a_cached_reference_can_be_interrupted(train, stop_when, tmp_path):
    stop_when("cached", "computing the reference", 0)
    with pytest.raises(Stopped):
        train("cached", "model.reference=cached")
    said, code = look(tmp_path / "runs" / "cached")
    assert code == 75
    assert "no checkpoint yet" in said
    # It was begun by a script and not by launchers/train.py: there is no command line to give.
    where = f"run.root={tmp_path / 'runs'} run.name=cached run.resume=auto"
    assert f"start again (1 ranks before): the same script, its recipe with {where}" in said
    assert len(train("cached", "model.reference=cached")) == 6

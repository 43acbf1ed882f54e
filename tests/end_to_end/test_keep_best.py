"""``checkpoint.keep_best``: the best checkpoint stays beside the newest, over a resume and a way back, and can be exported."""

import json

import launch
import pytest

from svco.basics.progress import silent
from svco.export import Wanted, export
from svco.record.manifest import best_of, finished
from svco.record.status import look

METRIC = "validation/pair_accuracy"
OPTIONS = (
    "optim.steps=6",
    "optim.global_batch=8",
    "optim.lr=0.01",
    "checkpoint.keep=1",
    f"checkpoint.keep_best={METRIC}",
    "evaluate.every=1",
    "evaluate.max_pairs=16",
    "data.heldout=",
)


def validated(run):
    return {line["step"]: line[METRIC] for line in launch.metrics(run) if METRIC in line}


def names(run):
    return [checkpoint.name for checkpoint in finished(run / "checkpoints")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with its best and its newest checkpoint, and the same with all."""
    root = tmp_path_factory.mktemp("runs")
    launch.alone(*OPTIONS, f"run.root={root}", "run.name=one")
    launch.alone(*OPTIONS, f"run.root={root}", "run.name=all", "checkpoint.keep=0", "checkpoint.every=1")
    return root / "one", root / "all"


def test_the_best_is_kept_shown_and_exported(runs):
    run, every = runs
    values = validated(run)
    best = max(values, key=lambda step: (values[step], -step))
    assert 1 < best < 6, "neither the first nor the newest, or this test shows nothing"
    assert names(run) == [f"step-{best:06d}", "step-000006"]
    assert best_of(every / "checkpoints")[0].name == f"step-{best:06d}"
    said, _ = look(run)
    assert f"best checkpoint step-{best:06d}: {METRIC} {values[best]:.4g}" in said
    assert export(Wanted(run, checkpoint="best"), silent).name == f"adapter-step-{best:06d}"
    manifest = json.loads((run / "checkpoints" / f"step-{best:06d}" / "MANIFEST.json").read_text())
    assert manifest["score"] == {"metric": METRIC, "value": values[best], "higher_is_better": True}


def test_what_a_run_went_back_behind_is_no_best(runs):
    """From a step before the best, whose successors are set aside, to the same end: the best is found again, not remembered."""
    run, every = runs
    best = best_of(every / "checkpoints")[0].name
    before = every / "checkpoints" / "step-000001"
    own = [f"run.root={every.parent}", "run.name=all", f"run.resume={before}"]
    launch.alone(*OPTIONS, *own)
    assert {f"step-{n:06d}.abandoned" for n in range(2, 7)} <= {path.name for path in before.parent.iterdir()}
    assert names(every) == [best, "step-000006"] and best_of(every / "checkpoints")[0].name == best
    assert validated(every) == validated(run)

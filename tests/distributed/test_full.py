"""Full fine-tuning of projector and language model with a frozen copy as reference, on 2 ranks."""

import hashlib
import json
import shutil

import launch
import pytest
from places import BASE, ROOT
from safetensors.torch import load_file

from svco.cli import main

RECIPE = [
    "model.tune=full",
    "optim.steps=6",
    "optim.global_batch=6",
    "optim.tokens_per_micro_batch=900",
    "optim.lr=2e-4",
    "data.validation=",
    "data.heldout=",
    "checkpoint.every=3",
    "checkpoint.keep=0",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(root, zero2, zero3):
    """The run under ZeRO-3; half of it under ZeRO-2 lies beside it."""
    recipe = [*RECIPE, f"run.root={root}"]
    launch.runs(2, (zero2, [*recipe, "run.name=stage2", "optim.steps=3"]), (zero3, [*recipe, "run.name=two"]))
    return root / "two"


def test_equals_one_process_without_deepspeed(root, two):
    launch.alone(*RECIPE, f"run.root={root}", "run.name=plain")
    ours, theirs = launch.training(two), launch.training(root / "plain")
    for step in range(1, 7):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-3)
        assert ours[step]["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], rel=1e-2)
    assert ours[1]["grad_norm"] == pytest.approx(theirs[1]["grad_norm"], rel=1e-5)
    assert abs(ours[6]["loss"] - ours[1]["loss"]) > 0.003


def test_exactly_the_declared_parameters_change(two):
    base, tuned = (load_file(folder / "model.safetensors") for folder in (BASE, two / "model"))
    assert base.keys() == tuned.keys()

    def digest(tensors):
        return hashlib.sha256(
            b"".join(tensors[k].numpy().tobytes() for k in sorted(tensors) if "vision_tower" in k)
        ).hexdigest()

    assert digest(base) == digest(tuned)
    same = {name for name in base if base[name].equal(tuned[name])}
    assert same == {name for name in base if "vision_tower" in name}


def test_resumed_bit_for_bit(root, two, zero3):
    copy = root / "copy"
    shutil.copytree(two, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000006")
    shutil.rmtree(copy / "model")
    launch.run(2, zero3, *RECIPE, f"run.root={root}", "run.name=copy", "run.resume=auto")
    assert launch.training(copy) == launch.training(two)
    checkpoint = two / "checkpoints" / "step-000003"
    stored = {p.name for p in checkpoint.rglob("*.pt")}
    assert len(stored) == 4, "a model and an optimizer file a rank"
    files = json.loads((checkpoint / "MANIFEST.json").read_text())["files"]
    assert {str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()} == {*files, "MANIFEST.json"}
    assert "reference" not in json.dumps(sorted(files))


@pytest.mark.slow
def test_resumed_on_other_ranks(root, two, zero3):
    """From 2 ranks to 1, stopped there by the time limit after one step, and back to 2: DeepSpeed's universal form each time."""
    copy = root / "other"
    shutil.copytree(two, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000006")
    line = [*RECIPE, f"run.root={root}", "run.name=other", "run.resume=auto"]
    process = launch.start(1, zero3, *line, "--time-limit", "1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output[-4000:]
    assert {p.name for p in (copy / "checkpoints").iterdir()} == {"latest", "step-000003", "step-000004"}
    assert "stopped: its time limit is near" in output
    launch.run(2, zero3, *line)
    ours, theirs = launch.training(copy), launch.training(two)
    assert ours.keys() == theirs.keys()
    for step in ours:
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-5)
        assert ours[step]["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("stage", [3, 2])
def test_exported_from_its_checkpoint(stage, root, two, monkeypatch, tmp_path):
    """The masters of two ranks, joined without DeepSpeed's engine: to the byte what the run's end wrote, and equal to
    what DeepSpeed's own tool reads."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    from svco.engine import read_partitioned

    run = {3: two, 2: root / "stage2"}[stage]
    newest = max((run / "checkpoints").glob("step-*"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["svco", "export", str(newest), "--to", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {p.name for p in (run / "model").iterdir()} == {p.name for p in BASE.iterdir()} | {"identity.json"}
    for file in ("model.safetensors", "config.json", "README.md", "identity.json"):
        assert (tmp_path / "out" / file).read_bytes() == (run / "model" / file).read_bytes(), file
    theirs = get_fp32_state_dict_from_zero_checkpoint(str(newest), tag="zero", exclude_frozen_parameters=True)
    names = json.loads((newest / "zero" / "names.json").read_text())
    ours = read_partitioned(newest / "zero")
    assert len(names) == len(ours) == 42
    assert all(ours[name][1]().equal(theirs[inside]) for inside, name in names.items())


def test_a_stopped_run_is_exported_from_its_newest_checkpoint(root, two, monkeypatch):
    """And loads in plain transformers: every weight in its place, other values than the base's and than the run's end."""
    from transformers import LlavaForConditionalGeneration

    stopped = root / "stopped"
    shutil.copytree(two, stopped, ignore=shutil.ignore_patterns("step-000006", "model", "state.json", "latest"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["svco", "export", str(stopped)])
    with pytest.raises(SystemExit):
        main()
    out = stopped / "export" / "full-step-000003"
    assert "Step 3 of 6 (the run had not ended)" in (out / "README.md").read_text()
    model, info = LlavaForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    early = model.state_dict()["model.language_model.norm.weight"]
    for other in (BASE, two / "model"):
        assert not early.equal(load_file(other / "model.safetensors")["language_model.model.norm.weight"])

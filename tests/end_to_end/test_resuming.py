"""A run goes on as what it was: a difference is refused before anything is written; going back sets aside what was later."""

import hashlib
import json
import shutil

import launch
import pytest
from places import ROOT

SMALL = (
    "optim.global_batch=8",
    "optim.steps=4",
    "checkpoint.every=1",
    "checkpoint.keep=0",
    "data.validation=",
    "data.heldout=",
    "evaluate.every=0",
)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A run of four steps with a checkpoint after each."""
    root = tmp_path_factory.mktemp("resuming")
    launch.alone(f"run.root={root}", "run.name=four", *SMALL)
    return root / "four"


@pytest.fixture
def stopped(four, tmp_path):
    """That run as if it had been stopped after step 2, in a root of its own."""
    folder = shutil.copytree(four, tmp_path / "four")
    for step in (3, 4):
        shutil.rmtree(folder / "checkpoints" / f"step-00000{step}")
    (folder / "checkpoints" / "latest").write_text("step-000002")
    return folder


def train(folder, *changes, resume="auto"):
    where = (f"run.root={folder.parent}", f"run.name={folder.name}", f"run.resume={resume}")
    return launch.here("train.py", "--ds", "none", "data.workers=0", *SMALL, *where, *changes)


def contents(folder):
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lora.alpha=64", "lora.alpha was 32.0 and is 64.0 now"),
        ("objective.beta=0.2", "objective.beta was 0.1 and is 0.2 now"),
        ("objective.name=dpo", "objective.name was svco and is dpo now"),
        ("optim.lr=1e-4", "optim.lr was 0.002 and is 0.0001 now"),
        ("optim.betas=[0.9, 0.999]", "optim.betas was 0.9, 0.95 and is 0.9, 0.999 now"),
        ("optim.steps=8", "the number of steps was 4 and is 8 now"),
        ("optim.global_batch=4", "optim.global_batch was 8 and is 4 now"),
        ("run.seed=7", "run.seed was 42 and is 7 now"),
        ("data.block_shards=2", "data.block_shards was 8 and is 2 now"),
        ("model.base=OTHER", "the base model's weights was"),
    ],
)
def test_another_run_is_refused_before_anything_is_written(stopped, other_base, capsys, change, says):
    before = contents(stopped)
    assert train(stopped, change.replace("OTHER", str(other_base))) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert says in error and "Cannot resume from" in error
    assert contents(stopped) == before | {"lock": contents(stopped)["lock"]}, "but for the lock's mark"


def test_what_may_change_may_and_what_is_meant_is_told(stopped, four, capsys):
    free = ("optim.tokens_per_micro_batch=2000", "optim.recompute=all", "checkpoint.every=2", "run.log_every=1")
    assert train(stopped, *free) == 0
    ours, theirs = ({s: line["loss"] for s, line in launch.training(f).items()} for f in (stopped, four))
    assert ours == pytest.approx(theirs, rel=1e-5)
    capsys.readouterr()
    assert train(stopped, resume="none") == 2, "its folder is not empty"
    shutil.rmtree(stopped / "checkpoints" / "step-000004")
    assert train(stopped, "objective.beta=0.2", "run.allow_change=objective.beta") == 0
    told = capsys.readouterr().err
    assert "changed deliberately: objective.beta was 0.1 and is 0.2 now" in told
    assert "beta: 0.2" in (stopped / "recipe.yaml").read_text()


def test_going_back_leaves_what_was_later_aside(four, tmp_path, capsys):
    folder = shutil.copytree(four, tmp_path / "four")
    assert train(folder, resume=folder / "checkpoints" / "step-000002") == 0
    assert (
        "set aside, later than where the run goes on: step-000003.abandoned, step-000004.abandoned"
        in capsys.readouterr().err
    )
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    kept = [f"step-00000{step}" for step in (1, 2, 3, 4)]
    assert names == sorted(["latest", *kept, "step-000003.abandoned", "step-000004.abandoned"])
    assert (folder / "checkpoints" / "latest").read_text() == "step-000004"
    assert [line["step"] for line in launch.metrics(folder)] == [1, 2, 3, 4]


def test_only_damaged_checkpoints_are_evidence_and_no_beginning(stopped, capsys):
    for step in (1, 2):
        (stopped / "checkpoints" / f"step-00000{step}" / "trainable.safetensors").write_bytes(b"torn")
    before = contents(stopped)
    with pytest.warns(UserWarning, match="passing over the checkpoint"):
        assert train(stopped) == 2
    assert "not begun again over them" in " ".join(capsys.readouterr().err.split())
    assert contents(stopped) == before | {"lock": contents(stopped)["lock"]}


def test_a_checkpoint_of_an_earlier_version_goes_on(stopped):
    """Its MANIFEST says nothing of the recipe."""
    manifest = stopped / "checkpoints" / "step-000002" / "MANIFEST.json"
    told = json.loads(manifest.read_text())
    del told["identity"], told["digest"]
    manifest.write_text(json.dumps(told | {"version": 1}))
    assert train(stopped) == 0


def test_names_stay_in_their_root(tmp_path, capsys):
    for name in ("../x", "a/b", "..", "a\tb"):
        assert launch.here("train.py", "--ds", "none", f"run.root={tmp_path}", f"run.name={name}") == 2
        assert "run.name" in capsys.readouterr().err
    assert not (ROOT / "x").exists() and not list(tmp_path.iterdir())

"""The command line as people use and misuse it: one clear paragraph, exit code 2, no traceback."""

import json
import re
import shlex
import shutil
import sys
import tarfile

import launch
import pytest
from places import ROOT

from svco import cli
from svco.data.pairs import Pair, PairText
from svco.data.shards import write_shards


@pytest.fixture
def train(capsys, tmp_path):
    """Runs launchers/train.py in this process: arguments -> (exit code, stdout, stderr with single spaces)."""

    def run(*arguments):
        code = launch.here("train.py", *arguments, f"run.root={tmp_path / 'runs'}", "data.workers=0")
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return run


SMALL = ["--ds", "none", "optim.steps=2", "optim.global_batch=4", "data.validation=", "data.heldout="]


def test_dry_run_shows_everything_and_touches_no_weights(tmp_path):
    base = tmp_path / "weightless"
    shutil.copytree(ROOT / "data_shards" / "tiny_llava", base)
    (base / "model.safetensors").unlink()
    out = launch.run(None, "ds_configs/zero3.json", "--dry-run", f"model.base={base}", "optim.lr=3e-5")
    for part in (
        "lr: 3.0e-05",
        "ranks:",
        "64 of 32 pairs",
        "tokens a step",
        "responses cut:",
        "bad pairs:",
        "tokens a pair:",
        "reference:",
        '"train_batch_size": 1',
        '"stage": 3',
    ):
        assert part in out, part


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optim.learning_rate=1", "--ds", "none"], "unknown key 'optim.learning_rate'"),
        (["optim.steps=x", "--ds", "none"], "optim.steps must be a whole number"),
        ([], "Missing --ds"),
        (["--ds", "nowhere.json"], "There is no DeepSpeed config nowhere.json"),
        (["--ds", "README.md"], "README.md is not JSON"),
        (["--ds", "none", "--recipe", "nowhere.yaml"], "There is no recipe file nowhere.yaml"),
        (["--ds", "none", "data.train=nowhere-{0..3}.tar"], "No shards match 'nowhere-0.tar'"),
        (["--ds", "none", "model.base=nowhere"], "model.base is 'nowhere'"),
        (["--ds", "none", "objective.name=dop"], "known objectives: svco"),
        (["--ds", "none", "--resume", "auto"], "run.resume=auto needs run.name"),
        (["--ds", "none", "lora.targets=[wq]"], "lora.targets names wq"),
        (["--ds", "none", "model.dtype=float16"], "runs on GPUs alone"),
    ],
)
def test_mistakes(train, arguments, says):
    code, _, err = train(*arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_run_folder_is_never_overwritten(train):
    assert train(*SMALL, "run.name=once")[0] == 0
    code, _, err = train(*SMALL, "run.name=once")
    assert code == 2
    assert "is not empty" in err
    code, _, err = train(*SMALL, "run.name=once", "run.resume=auto")
    assert code == 0, "a finished run resumed has nothing left to do"


@pytest.fixture
def dirty(tmp_path, make_pairs):
    """12 pairs of which one has a damaged image, one an empty response, one a query that does not fit, one a special token of the
    base."""
    pairs = make_pairs("train", 0, 12)
    pairs[2] = Pair(pairs[2].text, (pairs[2].images[0][:200], pairs[2].images[1]))
    text = pairs[5].text
    pairs[5] = Pair(PairText(key=text.key, query=text.query, responses=("", "x")), pairs[5].images)
    text = pairs[8].text
    pairs[8] = Pair(PairText(key=text.key, query="Why? " * 200, responses=text.responses), pairs[8].images)
    text = pairs[10].text
    pairs[10] = Pair(
        PairText(key=text.key, query=text.query, responses=("It is <image> a.", "It is b.")), pairs[10].images
    )
    write_shards(pairs, tmp_path / "dirty", "train", 100)
    return tmp_path / "dirty"


def test_bad_samples_are_counted_named_and_bounded(train, dirty, tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, f"data.train={dirty}", "optim.steps=3"]
    keys = {"train-000002": "undecodable-image", "train-000005": "empty-response", "train-000008": "long-query"}
    keys |= {"train-000010": "special-token"}
    code, out, _ = train(*arguments, "--dry-run")
    assert code == 0 and "1 empty-response, 1 long-query, 1 special-token, 1 undecodable-image" in out
    for key, reason in keys.items():
        assert re.search(rf"bad pair \({reason}\): .*{key}", out), "the dry run names them"
    with pytest.warns(UserWarning, match="bad sample") as named:
        code, _, err = train(*arguments, "run.name=strict")
    assert code == 2
    assert (
        "4 of the 12 pairs seen so far were bad (1 empty-response, 1 long-query, 1 special-token, 1 undecodable-image)"
        in err
    )
    for key in keys:
        assert any(key in str(warning.message) for warning in named)
    # The command that the message names lists them all, and the share that it names is accepted.
    command = shlex.split(re.search(r"'(svco data verify .*?)' lists every bad sample", err)[1])
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as done:
            cli.main()
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    assert done.value.code == 1 and len(listed) == len(keys)
    assert all(any(line.startswith(f"problem: {keys[key]}: ") and key in line for line in listed) for key in keys)
    share = re.search(r"allow more, e.g. ([\d.]+)\.", err)[1]
    arguments += [f"data.max_bad_fraction={share}", f"data.heldout={dirty}"]
    assert "data.train and data.heldout share 12 keys" in train(*arguments, "run.name=overlapping")[2]
    allowed, held = "data.allow_overlap=keys", "data.train and data.heldout share 23 pictures: image 0 of"
    assert held in train(*arguments, "run.name=overlapping", allowed)[2]
    with pytest.warns(UserWarning, match="bad sample"):
        assert train(*arguments, "run.name=lenient", "data.allow_overlap=all")[0] == 0
    heldout = json.loads((tmp_path / "runs" / "lenient" / "heldout.json").read_text())
    assert (heldout["pairs"], heldout["bad"]) == (8, 4), "held-out pairs do not vanish silently either"
    last = launch.metrics(tmp_path / "runs" / "lenient")[-1]
    assert {k: v for k, v in last.items() if k.startswith("bad/")} == {
        "bad/empty-response": 1,
        "bad/long-query": 1,
        "bad/special-token": 1,
        "bad/undecodable-image": 1,
    }
    assert last["pairs"] == 12


def test_cut_tar_stops_the_run_by_name(train, dirty):
    tar = dirty / "train-000000.tar"
    with tarfile.open(tar) as archive:
        middle = archive.getmembers()[10].offset_data + 100
    tar.write_bytes(tar.read_bytes()[:middle])
    code, _, err = train(*SMALL, f"data.train={tar}")
    assert code == 2
    assert "train-000000.tar is cut short" in err


def test_a_mistake_on_every_rank_is_said_once(tmp_path):
    """That the `deepspeed` command passes a rank's exit code on is seen in tests/distributed/test_worlds.py."""
    process = launch.start_svco(2, "zero3", f"run.root={tmp_path}", "data.train=nowhere.tar")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert output.count("No shards match 'nowhere.tar'") == 1, "said once, by rank 0"
    assert "Traceback" not in output

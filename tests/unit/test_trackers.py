"""Where numbers go besides a run's own files: TensorBoard's hyper-parameters and pairs, and guests that may fail."""

import json
import sys
import textwrap

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svco.basics.errors import UserError
from svco.recipe.config import Config, RunConfig
from svco.recipe.limits import check
from svco.recipe.read import load_recipe
from svco.record.board import Board
from svco.scores.sheet import SheetRow, contact_sheet, each_pair

SECRET = "sekrit9Zq"
RECIPE = {"optim.lr": 0.1, "data.train": (f"https://me:{SECRET}@host/x.tar?sig={SECRET}",), "run.name": "one"}
PACKAGE = """
    import json, os, pathlib
    LOG = pathlib.Path(__file__).with_name("{name}.log")
    def told(*what):
        with LOG.open("a") as stream:
            stream.write(json.dumps([str(part) for part in what]) + "\\n")
        if what[0] == os.environ.get("FAIL"):
            raise RuntimeError(f"no {what[0]} https://me:{secret}@host")
    class Image:
        def __init__(self, image): self.size = image.size
        def __str__(self): return f"image {self.size}"
    def Settings(**how): return how
    class settings: mode = "offline"
    class Run:
        settings = settings
        summary = {}
        def define_metric(self, *a, **k): pass
        def log(self, values, step=None): told("log", *(f"{k}={v}" for k, v in values.items()), f"at {step}")
        def finish(self): told("finish")
    def finish():
        Run().finish()
    def init(**how):
        print("a banner")
        told("init", how.get("id") or how["name"], how["config"], os.environ.get("WANDB_MODE"))
        return Run()
"""


@pytest.fixture
def guests(tmp_path, monkeypatch):
    """wandb and trackio that write down what they are told: name -> the lines."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("wandb", "trackio"):
        text = textwrap.dedent(PACKAGE).replace("{name}", name).replace("{secret}", SECRET)
        (packages / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield lambda name: [json.loads(line) for line in (packages / f"{name}.log").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def played(folder, report_to, start=0):
    """A short run's board from its first line to its end."""
    folder.mkdir(exist_ok=True)
    board = Board(folder, True, start, report_to, RECIPE)
    for step in range(start + 1, start + 4):
        board.write(step, {"loss": 1 / step, "odd": float("nan")})
    board.picture("pairs/0", sheet(folder)[0], start + 3)
    board.finish(start + 3, {"heldout/pair_accuracy": 0.5})
    board.close()
    return board


def sheet(folder):
    images = tuple(picture() for _ in range(2))
    rows = [
        SheetRow(f"k{n}", "What?", ("a", "b"), images, -np.ones((2, 3)), -np.ones((2, 3)), "object") for n in range(2)
    ]
    contact_sheet(rows, folder / "sheet.png", "title")
    return each_pair((folder / "sheet.png").read_bytes())


def picture():
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def test_tensorboard_has_pairs_and_hyper_parameters_once(tmp_path):
    from tensorboard.plugins.hparams import metadata

    played(tmp_path / "run", ("tensorboard",))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    (shown,) = events.Images("pairs/0")
    assert (shown.step, shown.width, shown.height) == (3, 1150, 325)
    assert [one.value for one in events.Scalars("heldout/pair_accuracy")] == [0.5]
    content = events.summary_metadata
    own = {
        tag: content[tag].plugin_data.content for tag in content if content[tag].plugin_data.plugin_name == "hparams"
    }
    assert len(own) == 3
    start = metadata.parse_session_start_info_plugin_data(own[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["optim.lr"].number_value == 0.1 and "x.tar" in start.hparams["data.train"].string_value
    assert all(SECRET.encode() not in part for part in own.values())
    played(tmp_path / "none", ())
    assert not (tmp_path / "none" / "tensorboard").exists()


def test_guests_hear_what_is_logged_and_nothing_secret(guests, tmp_path, capsys):
    """A resumed run is the same one there; a new run of that name is another."""
    played(tmp_path / "run", ("wandb", "trackio", "wandb"))
    played(tmp_path / "run", ("wandb", "trackio"), start=2)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    played(tmp_path / "run", ("wandb", "trackio"))
    for name in ("wandb", "trackio"):
        lines = guests(name)
        assert SECRET not in str(lines) and "x.tar" in str(lines[0])
        names = [line[1] for line in lines if line[0] == "init"]
        assert names[0] == names[1] != names[2] and all(one.startswith("run-") for one in names)
        first = lines[1 : lines.index(["finish"])]
        assert first[0][:3] == ["log", "run/loss=1.0", "run/odd=nan"] and "image (1150, 325)" in str(first[3])
        assert "heldout/pair_accuracy=0.5" in first[4]
    assert guests("wandb")[0][3] == "offline" and guests("wandb")[1][3] == "step=1"
    assert guests("trackio")[1][-1] == "at 1"
    told = capsys.readouterr()
    assert "trackio show --project svco" in told.err and not told.out


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_guest_that_fails_is_told_of_once_and_ends_nothing(guests, tmp_path, capsys, monkeypatch, fails):
    monkeypatch.setenv("FAIL", fails)
    played(tmp_path / "run", ("tensorboard", "wandb", "trackio"))
    told = capsys.readouterr().err
    for name in ("wandb", "trackio"):
        warned = [line for line in told.splitlines() if line.startswith(f"warning: {name}")]
        assert len(warned) == 1 and f"no {fails}" in warned[0] and SECRET not in warned[0]
        assert sum(line[0] == fails for line in guests(name)) == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("run/loss")


def test_what_is_not_installed_is_a_sentence(tmp_path, capsys, monkeypatch):
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    played(tmp_path / "run", ("wandb", "trackio"))
    told = " ".join(capsys.readouterr().err.split())
    for name in ("wandb", "trackio"):
        assert f"run.report_to names {name}, which cannot be imported" in told and f"pip install {name}" in told
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_real_ones_where_they_are_installed(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    monkeypatch.delenv("WANDB_MODE", raising=False)
    pytest.importorskip(name, reason=f"NOT TESTED: needs {name}, which svco does not install")
    played(tmp_path / "run", (name,))
    played(tmp_path / "run", (name,), start=2)
    told = capsys.readouterr()
    assert "warning" not in told.err and not told.out
    (folder,) = [tmp_path / "run" / "wandb" if name == "wandb" else tmp_path / "trackio"]
    kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"pair_accuracy" in data for data in kept) and not any(SECRET.encode() in data for data in kept)


def test_report_to_is_checked_and_read(tmp_path):
    assert Config().run.report_to == ("tensorboard",)
    assert load_recipe(None, ["run.report_to=[wandb,trackio]"]).run.report_to == ("wandb", "trackio")
    assert load_recipe(None, ["run.report_to="]).run.report_to == ()
    with pytest.raises(UserError, match="run.report_to is 'mlflow'; it must be one of tensorboard, wandb, trackio"):
        load_recipe(None, ["run.report_to=mlflow"])
    with pytest.raises(UserError, match="run.report_to is 'mlflow'"):
        check(Config(run=RunConfig(report_to=("mlflow",))))

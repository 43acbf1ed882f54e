"""svco as `pip install` leaves it, without the repository: a wheel in an environment of its own, used from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import launch
import pytest
import yaml
from places import ROOT

SOURCES = ("svco", "launchers", "ds_configs", "data_shards", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
SHIPPED = ("launchers/recipes/*.yaml", "ds_configs/*.json", "data_shards/*.tar", "data_shards/tiny_llava/*")


def call(*line, **how):
    done = subprocess.run(line, text=True, capture_output=True, timeout=400, **how)
    return done.returncode, done.stdout, done.stderr


def pip(*words):
    code, out, err = call(sys.executable, "-m", "pip", "--disable-pip-version-check", *words)
    assert code == 0, out + err


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built beside links to the sources: a build leaves folders where it is run."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        (folder / "source" / name).symlink_to(ROOT / name)
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def svco(wheel):
    """(what runs `svco ARGUMENTS` from an empty folder: (exit code, stdout, stderr with single spaces), that folder).

    The environment holds svco alone; behind it are the packages of the one that runs the tests, whose own svco must not win.
    """
    venv, folder = wheel.parent / "venv", wheel.parent / "empty"
    folder.mkdir()
    # It lies in somebody's repository, which is not svco's.
    own = ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "mine")
    assert [call("git", "-C", folder.parent, *words)[0] for words in (("init", "-q"), own)] == [0, 0]
    code, out, err = call(sys.executable, "-m", "venv", "--without-pip", venv)
    assert code == 0, out + err
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", venv / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    environment = {name: value for name, value in launch.ENVIRONMENT.items() if name != "PYTHONPATH"}
    environment["MASTER_PORT"] = str(launch.free_port())
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    code, where, err = call(
        venv / "bin" / "python", "-c", "import svco; print(svco.__file__)", cwd=folder, env=environment
    )
    assert Path(where).is_relative_to(site), where + err

    def run(*words):
        code, out, err = call("svco", *map(str, words), cwd=folder, env=environment)
        return code, out, " ".join(err.split())

    return run, folder


def test_the_wheel_holds_what_comes_with_svco(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"svco/shipped/{file.relative_to(ROOT)}" for pattern in SHIPPED for file in ROOT.glob(pattern)}
    assert len(shipped) > 30 and shipped <= names
    assert {name for name in names if name.startswith("svco/shipped/")} - shipped == {
        "svco/shipped/launchers/study.slurm"
    }
    assert {"svco/cli.py", "svco/__main__.py", "svco/commands/probe/page.html.j2", "svco/basics/base.css"} <= names
    assert {"svco/endpoint/prices.yaml", "svco/commands/data/rewrite/prompts/captions.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests", "launchers"))]


def test_it_trains_from_an_empty_folder_on_ranks_of_its_own(svco):
    run, folder = svco
    small = ["optim.steps=3", "optim.global_batch=8", "data.validation=", "data.heldout=", "data.workers=0"]
    code, out, err = run("train", *small, "--ds", "zero3", "--ranks", "2", "run.name=first")
    assert code == 0, out + err
    left = folder / "runs" / "first"
    assert [line["step"] for line in launch.metrics(left)] == [1, 2, 3]
    assert (left / "adapter" / "adapter_model.safetensors").is_file()
    state = json.loads((left / "state.json").read_text())
    assert (state["state"], state["ranks"]) == ("finished", 2)
    assert state["command"][:2] == ["svco", "train"]
    recipe = yaml.safe_load((left / "recipe.yaml").read_text())
    assert recipe["model"]["base"] == "data_shards/tiny_llava", "no path of this installation"
    assert json.loads((left / "versions.json").read_text())["commit"] is None

    code, out, err = run("status", "runs/first")
    assert code == 0 and "first: finished" in out
    code, out, err = run("eval", "--base", "data_shards/tiny_llava", "--adapter", "runs/first/adapter", "--out", "eval",
                         "--set", "heldout=data_shards/heldout-000000.tar", "--pairs", "8", "--workers", "0")  # fmt: skip
    assert code == 0, err
    assert json.loads((folder / "eval" / "eval.json").read_text())["sets"]["heldout"]["pairs"] == 8


def test_recipes_are_found_by_name_and_a_misspelt_one_is_told(svco):
    run, _ = svco
    code, out, err = run("plan", "llava15_7b_lora")
    assert code == 0 and "llava15_7b_lora" in out and "zero2" in out, err
    code, out, err = run("train", "--ds", "none", "--dry-run")
    assert code == 0 and "64 of 32 pairs" in out, err
    code, out, err = run("train", "--ds", "zero3", "--ranks", "2", "--recipe", "llava15_7b_lorra")
    assert code == 2
    assert "There is no recipe file llava15_7b_lorra" in err and "Did you mean 'llava15_7b_lora'?" in err
    code, out, err = run("study", "--dry-run", "--only", "main")
    assert code == 0 and "trials: " in out, err

"""What full fine-tuning leaves on disk, where this run cannot read it or cannot convert it."""

import sys
from threading import Thread

import pytest
import torch
from places import BASE

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.engine import make_engine
from svco.engine.universal import fitting, run_marked, wait_for
from svco.families import load_family
from svco.model.load import load_tuned
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe


def test_full_fine_tuning_resumes_what_was_written_the_same_way(tmp_path):
    """Without DeepSpeed, in memory and on NVMe: three forms of its state, and no engine is made for the wrong one."""
    config = load_recipe(None, [f"model.base={BASE}", "model.tune=full", f"run.swap={tmp_path}"])
    tuned = load_tuned(config, load_family(str(BASE), 128), torch.float32, "cached", torch.device("cpu"), False)
    forms = {
        "zero3": ("zero/zero_pp_rank_0_mp_rank_00_optim_states.pt", "in memory"),
        "zero3_nvme": ("swapped-00000-00000.safetensors", "on NVMe"),
    }
    for name, (file, _) in forms.items():
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
    for now, written in (("zero3", "zero3_nvme"), ("zero3_nvme", "zero3"), (None, "zero3")):
        ds = now and fill(read_ds_config(f"ds_configs/{now}.json"), config, 1, "float32")
        how = forms[now][1] if now else r"--ds none"
        with pytest.raises(UserError, match=f"was written .*{forms[written][1]}.* this run is one .*{how}"):
            make_engine(tuned, config.optim, World(), ds, tmp_path / written)


def test_a_conversion_that_fails_says_why_and_leaves_nothing(tmp_path):
    """DeepSpeed's converter itself, given files that are none of its own."""
    folder = tmp_path / "step-000003"
    (folder / "zero").mkdir(parents=True)
    for rank in (0, 1):
        for what in ("model", "optim"):
            torch.save({"of": "nobody"}, folder / "zero" / f"zero_pp_rank_{rank}_mp_rank_00_{what}_states.pt")
    ds = fill(read_ds_config("ds_configs/zero3.json"), load_recipe(None, ["model.tune=full"]), 1, "float32")
    with (
        pytest.raises(UserError, match=r"for 1 ranks \(exit code 1: .*Resume with as many"),
        fitting(folder, ds, World()),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_killed_conversion_is_a_failure_on_every_rank(tmp_path):
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert run_marked(killed, tmp_path / "mark") == wait_for(tmp_path / "mark") == "exit code -9: it said nothing"
    assert "No such file" in run_marked([str(tmp_path / "none")], tmp_path / "other")
    assert "No such file" in wait_for(tmp_path / "other")
    with pytest.raises(UserError, match="cannot be written"):
        run_marked(killed, tmp_path / "gone" / "mark")


def test_ranks_wait_as_long_as_rank_0_lives(tmp_path):
    slow = [sys.executable, "-c", "import time; time.sleep(4)"]
    converting = Thread(target=run_marked, args=(slow, tmp_path / "mark", 0.2))
    converting.start()
    assert wait_for(tmp_path / "mark", silence=2.5) == ""
    converting.join()
    with pytest.raises(UserError, match="no sign of life"):
        wait_for(tmp_path / "never", silence=0.5)

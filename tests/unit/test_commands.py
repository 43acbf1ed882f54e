"""The table of commands, and how `svco` starts the ranks of one."""

import base64
import json
import os
import socket
import subprocess
import sys

import pytest
from places import ROOT

from svco.basics import ranks
from svco.basics.errors import UserError
from svco.cli import COMMANDS

EVERY_HELP = """
import argparse, importlib, sys
from svco.cli import COMMANDS
for name, (package, told) in COMMANDS.items():
    options = importlib.import_module(f"svco.{package}.options")
    parser = argparse.ArgumentParser(prog=name)
    options.add(parser)
    assert told and parser.description and parser.format_help() and callable(options.run), name
print(sorted({"torch", "transformers", "numpy", "matplotlib"} & sys.modules.keys()))
"""


def svco(*words, **how):
    return subprocess.run([sys.executable, "-m", "svco", *words], cwd=ROOT, capture_output=True, text=True, **how)


def test_every_command_has_options_and_a_quick_help():
    assert list(COMMANDS) == [
        "train",
        "eval",
        "judge",
        "table",
        "bench",
        "doctor",
        "study",
        "data",
        "plan",
        "status",
        "export",
        "probe",
        "ask",
        "report",
    ]
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    help_text = svco("--help").stdout
    assert all(f"  {name:<8}{told}" in help_text for name, (_, told) in COMMANDS.items())


def test_a_command_that_is_none_is_told_the_nearest():
    done = svco("trian", "--ds", "none")
    assert (done.returncode, done.stderr.strip()) == (2, "error: There is no command 'trian'. Did you mean 'train'?")


def test_an_override_may_stand_anywhere_and_launchers_may_say_the_local_rank():
    done = svco("--local_rank=0", "train", "optim.lr=1", "--ds", "none", "optim.lrr=2")
    assert done.returncode == 2 and "unknown key 'optim.lrr'" in done.stderr


@pytest.fixture
def started(monkeypatch):
    """What is executed in place of this process: [(words after the launcher's own, environment, world)]."""
    calls = []

    def execute(program, line, environment):
        assert program == line[0] == sys.executable
        at = line.index(str(ranks.PROGRAM))
        world = next(word for word in line[:at] if word.startswith("--world_info="))
        world = json.loads(base64.urlsafe_b64decode(world.partition("=")[2]))
        calls.append((line[at + 1 :], environment, world["localhost"], line[:at]))

    monkeypatch.setattr(os, "execve", execute)
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return calls


def on_gpus(monkeypatch, count):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


TYPED = ("svco", "train", "--ds", "zero3")


def test_a_rank_for_each_gpu_and_the_run_knows_how_many(started, monkeypatch):
    on_gpus(monkeypatch, 3)
    ranks.start_ranks(TYPED, None)
    words, environment, devices, _ = started.pop()
    assert words == ["train", "--ds", "zero3", "--ranks", "3"] and devices == ["0", "1", "2"]
    assert environment["PATH"].startswith(os.path.dirname(sys.executable))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab12,7")
    ranks.start_ranks(TYPED, 2)
    assert started.pop()[2] == ["5", "GPU-ab12"]
    with pytest.raises(UserError, match="--ranks is 4, and there are 3 GPUs here"):
        ranks.start_ranks(TYPED, 4)


@pytest.mark.parametrize(
    ("typed", "wanted", "several", "environment"),
    [
        (TYPED, None, True, {}),  # no GPU
        (TYPED, 1, True, {}),
        (TYPED, None, False, {}),  # --ds none
        (TYPED, 2, True, {"RANK": "1"}),  # deepspeed, torchrun
        (TYPED, 2, True, {"SLURM_STEP_NUM_TASKS": "2"}),  # srun
        (("launchers/train.py", "--ds", "zero3"), 2, True, {}),
    ],
)
def test_where_nothing_is_to_be_started_this_process_is_the_rank(
    started, monkeypatch, typed, wanted, several, environment
):
    on_gpus(monkeypatch, 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ranks.start_ranks(typed, wanted, several)
    assert not started


def test_the_ranks_meet_at_a_port_that_is_free(started, monkeypatch):
    on_gpus(monkeypatch, 0)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("", 29500))
            taken.listen()
        except OSError:
            pass  # somebody else's, which will do
        ranks.start_ranks(TYPED, 2)
    (port,) = [word for word in started.pop()[3] if word.startswith("--master_port=")]
    assert int(port.partition("=")[2]) not in (0, 29500)
    monkeypatch.setenv("MASTER_PORT", "29777")
    ranks.start_ranks(TYPED, 2)
    assert "--master_port=29777" in started.pop()[3]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_is_no_error(unbuffered):
    """`svco … | head`: no traceback, and the exit code that a shell gives for it."""
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "svco", "plan", "llava15_7b_lora", "--ds", "zero3"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")

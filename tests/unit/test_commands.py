"""The table of commands, and how `svco` starts the ranks of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

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
def started(monkeypatch, tmp_path):
    """What starts ranks that only write who they are, in a process of its own: (environment, words of start_ranks) -> (exit code,
    [(words, environment)] of each rank)."""
    rank = tmp_path / "rank.py"
    rank.write_text(
        "import json, os, pathlib, sys; here = pathlib.Path(__file__).parent\n"
        "(here / f\"{os.environ['RANK']}.json\").write_text(json.dumps([sys.argv[1:], dict(os.environ)]))"
    )
    monkeypatch.setattr(ranks, "PROGRAM", rank)
    before = {number: signal.getsignal(number) for number in HEARD}
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)

    def start(*arguments):
        with pytest.raises(SystemExit) as ended:
            ranks.start_ranks(*arguments)
        told = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
        assert [(place["RANK"], place["LOCAL_RANK"]) for _, place in told] == [(str(n),) * 2 for n in range(len(told))]
        assert {place["WORLD_SIZE"] for _, place in told} == {str(len(told))}
        for file in tmp_path.glob("*.json"):
            file.unlink()
        return ended.value.code, told

    yield start
    for number, handler in before.items():
        signal.signal(number, handler)


HEARD = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


def on_gpus(monkeypatch, count):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(ranks, "_has_a_driver", lambda: count > 0)


TYPED = ("svco", "train", "--ds", "zero3")


def test_a_rank_for_each_gpu_and_the_run_knows_how_many(started, monkeypatch):
    on_gpus(monkeypatch, 3)
    code, told = started(TYPED, None)
    assert code == 0 and len(told) == 3
    for words, environment in told:
        assert words == ["train", "--ds", "zero3", "--ranks", "3"] and environment["CUDA_VISIBLE_DEVICES"] == "0,1,2"
        assert environment["PATH"].startswith(os.path.dirname(sys.executable))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab12,7")
    assert [place["CUDA_VISIBLE_DEVICES"] for _, place in started(TYPED, 2)[1]] == ["5,GPU-ab12"] * 2
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
    ranks.start_ranks(typed, wanted, several)  # SystemExit, had it started any


def test_the_ranks_meet_at_a_port_that_is_free(started, monkeypatch):
    """Of two starts the second takes another, though nobody listens at the first's yet; and none takes where somebody does."""
    on_gpus(monkeypatch, 0)

    def port():
        _, told = started(TYPED, 2)
        assert "CUDA_VISIBLE_DEVICES" not in told[0][1]
        (found,) = {place["MASTER_PORT"] for _, place in told}
        return int(found)

    first, second = port(), port()
    assert first != second and 29500 not in (first, second), "nor DeepSpeed's own"
    for claim in ranks._claims:
        claim.close()  # as when these starts have ended
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", first))
        taken.listen()
        assert port() not in (0, first)
    monkeypatch.setenv("MASTER_PORT", "29777")
    assert port() == 29777


RANK = """
import os, pathlib, signal, sys, time
here, rank, how = pathlib.Path(__file__).parent, int(os.environ["RANK"]), sys.argv[1]
told = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, _: told.append(number) if how != "deaf" or rank else None)
(here / f"ready{rank}").touch()
while not all((here / f"ready{other}").exists() for other in (0, 1)):
    time.sleep(0.01)
if how in ("fails", "deaf") and rank:
    sys.exit(3)
if how == "killed" and rank:
    os.kill(os.getpid(), signal.SIGKILL)
while not told:
    time.sleep(0.01)
time.sleep(0.2 * rank)  # a save
(here / f"{signal.Signals(told[0]).name}-{rank}").touch()
sys.exit(75)
"""


@pytest.mark.parametrize(
    ("how", "send", "code", "heard"),
    [
        ("asked", "SIGTERM", 75, {"SIGTERM-0", "SIGTERM-1"}),
        ("asked", "SIGUSR1", 75, {"SIGUSR1-0", "SIGUSR1-1"}),
        ("asked", "SIGINT", 75, {"SIGTERM-0", "SIGTERM-1"}),
        ("fails", "", 3, {"SIGTERM-0"}),
        ("killed", "", 128 + 9, {"SIGTERM-0"}),
        ("deaf", "", 3, set()),  # it is not waited for longer than PATIENCE
    ],
)
def test_signals_reach_every_rank_and_one_that_fails_ends_the_others(how, send, code, heard, tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    start = (
        "import pathlib, sys; from svco.basics import ranks; ranks.PATIENCE = 1; ranks.PROGRAM = pathlib.Path(sys.argv[1]); "
        "ranks.start_ranks(('svco', sys.argv[2]), 2)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    line = [sys.executable, "-c", start, str(tmp_path / "rank.py"), how]
    process = subprocess.Popen(line, cwd=ROOT, env=environment)
    while not (tmp_path / "ready1").exists() or not (tmp_path / "ready0").exists():
        assert process.poll() is None or not send
        time.sleep(0.01)
    if send:
        process.send_signal(signal.Signals[send])
    assert process.wait(30) == code
    assert {file.name for file in tmp_path.glob("SIG*")} == heard


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_is_no_error(unbuffered):
    """`svco … | head`: no traceback, and the exit code that a shell gives for it."""
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "svco", "study", "--dry-run"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")

"""Requests to stop: who hears them, when the wall is near, and what a run's files say about it afterwards."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from places import ROOT

from svco.basics.dist import World
from svco.basics.errors import Stopped, UserError
from svco.export import read_facts
from svco.recipe.limits import duration
from svco.recipe.read import load_recipe
from svco.record.checkpoint import Checkpoints
from svco.record.lock import FolderLock
from svco.record.manifest import Position
from svco.record.state import STALE_SECONDS, Heartbeat, RunState, _born, wait_until_over
from svco.record.status import EXIT_CODES, find_runs, look
from svco.run.folder import RunFolder
from svco.run.stopping import StopRequests


class Time:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lap(stops, time, seconds):
    time.now += seconds
    return stops.agreed()


def test_stops_while_a_step_and_a_save_still_fit():
    time = Time()
    stops = StopRequests(World(), limit=1000, now=time)
    time.now = 100  # loading is no lap
    stops.begin("training")
    while not (reason := lap(stops, time, 10)):
        assert time.now < 1000
    assert reason == "its time limit is near"
    # Kept free: 15 s for a step, 50 s for a save that was never seen, 10 s.
    assert 1000 - time.now == pytest.approx(75, abs=10)
    slow = StopRequests(World(), limit=1000, now=time)
    slow.begin("training")
    assert not lap(slow, time, 10)
    with slow.saving():
        time.now += 200
    began = time.now - 210
    while not lap(slow, time, 10):
        pass
    assert 1000 - (time.now - began) == pytest.approx(15 + 300 + 10, abs=10), "one and a half times the longest save"
    slow.begin("scoring pairs")
    assert lap(slow, time, 0) == "its time limit is near", "what is agreed stays"


def test_rank_0s_clock_decides():
    time = Time()
    other = StopRequests(World(rank=1, size=1), limit=1, now=time)
    time.now = 5
    assert not other.agreed()


def test_signals_are_heard_inside_and_left_alone_outside():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests(World()) as stops:
        assert not stops.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.agreed() == "SIGTERM"
        with pytest.raises(Stopped, match="SIGTERM"):
            list(stops.stopping_between([1, 2]))
    assert signal.getsignal(signal.SIGTERM) is before


ORPHAN = """
import os, sys, time
from svco.basics.dist import World
from svco.run.stopping import StopRequests
with StopRequests(World()) as stops:
    print("ready", flush=True)
    for _ in range(40):
        time.sleep(0.1)
        if reason := stops.agreed():
            break
    print("bye", flush=True)
    open(sys.argv[1], "w").write(reason or "went on")
"""


@pytest.mark.parametrize("launched", [True, False])
def test_a_launchers_death_is_noticed_and_a_shells_is_not(tmp_path, launched):
    """Whoever read the output may be gone with the launcher, which must not end the save."""
    environment = {k: v for k, v in os.environ.items() if k != "RANK"} | ({"RANK": "0"} if launched else {})
    shell = subprocess.Popen(
        ["bash", "-c", '"$0" -c "$1" "$2"; true', sys.executable, ORPHAN, str(tmp_path / "end")],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert shell.stdout.readline() == b"ready\n"
    shell.kill()
    shell.wait()
    if launched:
        shell.stdout.close()
    deadline = time.monotonic() + 20
    while not (tmp_path / "end").exists() or not (tmp_path / "end").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "end").read_text() == ("its launcher is gone" if launched else "went on")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3:55:00", 14100),
        ("03:55:00", 14100),
        ("45m", 2700),
        ("2h", 7200),
        ("1h30m", 5400),
        ("90", 90),
        ("1-12:00:00", 129600),
    ],
)
def test_time_limits_mean_the_same_however_yaml_reads_them(tmp_path, text, seconds):
    for quote in ("", "'"):
        (tmp_path / "recipe.yaml").write_text(f"run:\n  time_limit: {quote}{text}{quote}\n")
        assert duration(load_recipe(tmp_path / "recipe.yaml").run.time_limit) == seconds
    assert duration(load_recipe(None, [f"run.time_limit={text}"]).run.time_limit) == seconds


def test_signals_do_not_disturb_the_way_out():
    """One every millisecond, to the last moment of the process: it still says 75."""
    script = (
        "from svco.basics.dist import World; from svco.basics.errors import Stopped, exit_codes\n"
        "from svco.run.stopping import StopRequests\n"
        "with exit_codes(), StopRequests(World()):\n"
        "    print('listening', flush=True)\n"
        "    raise Stopped('SIGUSR1')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "listening\n"
    while process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.001)
    process.stdout.close()
    assert process.returncode == 75


@pytest.mark.parametrize("text", ["soon", "0", "-5", "3:5", "1:2:3:4"])
def test_other_time_limits_are_refused(text):
    with pytest.raises(UserError, match="run.time_limit"):
        load_recipe(None, [f"run.time_limit='{text}'"])


@pytest.fixture
def run(tmp_path):
    """A run of 20 steps with a checkpoint after step 8, whose heart is (folder, kind of ending) -> told."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    position = Position(8, 0, 48, 42, 6, 20, "abc", 1, "lora", {})

    def write(folder):
        (folder / "weights").write_bytes(b"12345")
        return [folder / "weights"]

    Checkpoints(folder / "checkpoints", 0, World()).save(position, write)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 9, "loss": 2.5, "pairs": 54}) + "\n")
    return folder


def heart(folder):
    command = (
        "launchers/train.py",
        "--local_rank=0",
        "--ds",
        "ds.json",
        "--resume",
        "none",
        "optim.lr=1e-3",
        "run.name=x",
    )
    return Heartbeat(folder, True, 2, command)


def test_status_of_a_run_in_every_state(run):
    with pytest.raises(UserError, match="There is no run in"):
        find_runs([run])
    with pytest.raises(UserError, match="no state.json"):
        look(run)
    with heart(run) as alive:
        alive.tell(doing="training", steps=20)
        alive.step(8)
        alive.step(9)
        alive.tell()
        text, code = look(run)
        assert (code, EXIT_CODES["running"]) == (3, 3)
        assert "running, training; process" in text
        assert "step 9 of 20, 54 pairs" in text
        assert "left" in text
        assert f"kill -USR1 {os.getpid()}" in text
    text, code = look(run)
    assert code == 0
    assert "one: finished\n" in text
    with pytest.raises(Stopped), heart(run):
        raise Stopped("SIGTERM")
    text, code = look(run)
    assert code == 75
    assert "one: stopped: SIGTERM (exit code 75)" in text
    assert "checkpoint step-000008: all files are there" in text
    assert (
        f"continue (2 ranks before): deepspeed launchers/train.py --ds ds.json optim.lr=1e-3 run.root={run.parent} "
        "run.name=one run.resume=auto" in text
    )
    with pytest.raises(ValueError), heart(run):
        raise ValueError("no such thing\nand more")
    text, code = look(run)
    assert code == 1
    assert "one: failed: ValueError: no such thing (exit code 1)" in text
    assert find_runs([run.parent]) == [run]


@pytest.mark.parametrize(
    ("command", "ranks", "says"),
    [
        ("svco train --ds zero3 --ranks 2", 2, "svco train --ds zero3 --ranks 2"),
        ("svco train --ds zero3 --ranks=2 --resume auto", 2, "svco train --ds zero3 --ranks=2"),
        ("svco train --ds zero3", 1, "svco train --ds zero3"),
        ("svco train --ds none", 1, "svco train --ds none"),
        ("svco train --ds zero3", 16, "deepspeed --module svco train --ds zero3"),  # a launcher's ranks
        ("svco train --local_rank=3 --ds zero3 --ranks 1", 16, "deepspeed --module svco train --ds zero3 --ranks 1"),
        ("my_train.py --ds none", 1, "python my_train.py --ds none"),
    ],
)
def test_the_command_that_continues_a_run(run, command, ranks, says):
    with pytest.raises(Stopped), Heartbeat(run, True, ranks, tuple(command.split())):
        raise Stopped("SIGTERM")
    where = f"run.root={run.parent} run.name=one run.resume=auto"
    assert f"continue ({ranks} ranks before): {says} {where}" in look(run)[0]


def test_a_run_whose_process_or_heart_is_gone_is_dead(run):
    with heart(run):
        state = RunState.read(run)
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        for change, says in (
            ({"pid": gone.pid}, f"there is no process {gone.pid} on {socket.gethostname()} any more"),
            (
                {"host": "elsewhere", "beat": time.time() - STALE_SECONDS - 5},
                "no sign of life from elsewhere for 18",
            ),
        ):
            replace(state, doing="training", **change).write(run)
            text, code = look(run)
            assert code == 1
            assert f"one: dead: it was training, and {says}" in text
            assert "continue (2 ranks before)" in text
            with FolderLock(run) as lock:
                wait_until_over(run, lock)
        replace(state, host="elsewhere", beat=time.time() - 5).write(run)
        assert look(run)[1] == 3, "a host that cannot be asked is believed for a while"


@pytest.mark.parametrize(
    ("doing", "age", "ranks", "says", "left"),
    [
        ("training", 8, 2, "", "about 22 s left"),
        (
            "training",
            240,
            2,
            "the last step ended 4 min 0 s ago, and one usually takes 2 s; if a rank is stopped or lost, ",
            "",
        ),
        ("training", 240, 2, "the others give up in about 26 min 0 s (run.timeout_minutes = 30)", ""),
        ("training", 2000, 2, "the others give up at any moment", ""),
        ("training", 240, 1, "the last step ended 4 min 0 s ago, and one usually takes 2 s\n", ""),
        ("scoring pairs", 240, 2, "", "left"),
        (
            "scoring pairs",
            400,
            2,
            "the last sign of progress was 6 min 40 s ago; if a rank is stopped or lost, the others",
            "",
        ),
    ],
)
def test_a_run_that_does_not_get_on_says_since_when(run, doing, age, ranks, says, left):
    """A rank that is stopped: rank 0 waits for it, and its heart beats on."""
    with heart(run):
        state = RunState.read(run)
        how = {"doing": doing, "moved": time.time() - age, "ranks": ranks, "timeout_minutes": 30.0}
        replace(state, step=9, steps=20, seconds_a_step=2.0, **how).write(run)
        text, code = look(run)
        assert code == 3 and says in text and left in text
        assert ("ago" in text) == bool(says) and (" left" in text) == bool(left)


def test_a_process_that_is_suspended_is_told_at_once(run):
    with heart(run):
        stopped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        state = replace(RunState.read(run), pid=stopped.pid, moved=time.time(), timeout_minutes=30.0, doing="training")
        ticks, boot = _born(stopped.pid)
        replace(state, ticks=ticks, boot=boot).write(run)
        assert "suspended" not in look(run)[0]
        stopped.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
            text, code = look(run)
            assert code == 3 and f"process {stopped.pid} is suspended: kill -CONT {stopped.pid}" in text
            assert "the others give up in about" in text
        finally:
            stopped.kill()
            stopped.wait()


def test_damage_is_seen_by_size_or_by_every_byte(run):
    with pytest.raises(Stopped), heart(run):
        raise Stopped("SIGTERM")
    (run / "checkpoints" / "step-000008" / "weights").write_bytes(b"12344")
    assert "all files are there" in look(run)[0]
    text, _ = look(run, verify=True)
    assert "checkpoint step-000008: weights has other contents" in text
    assert "start again" in text


def test_a_run_that_another_process_works_on_is_not_taken_over(run, monkeypatch):
    monkeypatch.setattr("svco.record.state.BEAT_SECONDS", 0.05)
    with heart(run), pytest.raises(UserError, match="is running: starting, step 0 of 0, process"):
        wait_until_over(run, FolderLock(run))


@pytest.mark.parametrize("blocked", ["one", "one/recipe.yaml"])
def test_a_run_folder_that_cannot_be_written_is_no_traceback(tmp_path, blocked):
    """A file in the folder's place; then a folder in a file's, which stops root too."""
    if blocked == "one":
        (tmp_path / blocked).touch()
    else:
        (tmp_path / blocked).mkdir(parents=True)
    config = load_recipe(None, [f"run.root={tmp_path}", "run.name=one", "run.resume=auto"])
    told = pytest.raises(
        UserError, match=f"cannot be made or written to: .*{blocked}|{blocked} cannot be written: Is a directory"
    )
    with told, RunFolder.open(config, "tiny", World()) as folder:
        folder.describe(config, World(), None)


def test_a_card_without_the_checkpoint_that_latest_names(run):
    (run / "recipe.yaml").write_text("")
    (run / "versions.json").write_text(json.dumps({"dtype": "float32", "base": {"name": "tiny", "on_hub": False}}))
    assert read_facts(run, None).position.step == 8
    shutil.rmtree(run / "checkpoints" / "step-000008")
    assert read_facts(run, None).position is None

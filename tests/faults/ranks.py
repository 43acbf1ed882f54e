"""Two ranks under ZeRO-3 (gloo): one killed, stopped, slowed; their launcher ended by every signal; a loader process killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import launch
import psutil
from places import ROOT

from faults.kills import PHASES
from faults.processes import At, Injected, kill, suspend
from faults.stage import Broken, Ended, Stage, must, told
from faults.table import Row
from svco.record.status import look

LIVE = "model.reference=lockstep"
GONE = "Another rank is gone or silent"
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP", "SIGQUIT", "SIGKILL")


def rows(seed: int) -> list[Row]:
    draw, found = random.Random(seed + 1), []
    for part in ("step", "validation", "save", "export"):
        for rank in (0, 1):
            found.append(
                Row(
                    f"rank/killed/{part}/{rank}",
                    f"kill -9 of rank {rank} of 2",
                    f"{PHASES[part][2]} (drawn)",
                    "the other ends by itself with exit code 2 and says that a rank is gone; resumed: the same curve and weights",
                    partial(rank_killed, part=part, rank=rank, share=draw.random()),
                    short=(part, rank) == ("step", 1),
                )
            )
    for who in ("deepspeed", "launch.py"):
        for name in SIGNALS:
            found.append(
                Row(
                    f"launcher/{who}/{name}",
                    f"{name} to {who}",
                    "in mid-run, started by `deepspeed` with 2 ranks",
                    "no rank outlives it; what was saved goes on: the same curve and weights, bit for bit",
                    partial(launcher_ended, who=who, number=getattr(signal, name)),
                )
            )
    return [
        *found,
        Row(
            "rank/stopped",
            "SIGSTOP to rank 1 of 2, SIGCONT when the other has given up",
            "in a step",
            "the other gives up after run.timeout_minutes with exit code 2, the stopped one when it goes on; resumed: the same",
            rank_stopped,
        ),
        Row(
            "rank/slowed",
            "rank 1 of 2 waits 0.05 s at each file it opens",
            "in all of the run",
            "nothing is wrong: the same curve and weights, bit for bit",
            rank_slowed,
        ),
        Row(
            "rank/fewer",
            "2 ranks killed after step 4, resumed by one process without DeepSpeed",
            "after step 4",
            "the same curve within 1e-5",
            fewer,
        ),
        Row(
            "rank/more",
            "one process killed after step 4, resumed by 3 ranks",
            "after step 4",
            "the same curve within 1e-5",
            more,
        ),
        Row(
            "rank/full/other-number",
            "full fine-tuning under ZeRO-2, resumed by another number of ranks",
            "after the run",
            "exit code 2, one sentence that says with how many ranks it was written",
            full_other_ranks,
        ),
        Row(
            "worker/killed",
            "kill -9 of a loader process (the kernel's choice when memory is short)",
            "in the first epoch",
            "exit code 2, one sentence that says so; resumed: the same curve and weights, bit for bit",
            worker_killed,
            short=True,
        ),
        Row(
            "rank/control",
            "control: the curve of two ranks whose step 4 has another last digit",
            "afterwards",
            "the check of the curve breaks",
            last_digit,
            control=True,
        ),
        Row(
            "left/control/process",
            "control: a process of the row outlives it",
            "afterwards",
            "the check of what is left behind breaks",
            left_process,
            control=True,
            short=True,
        ),
        Row(
            "left/control/memory",
            "control: a shared memory segment under a name of the row's port",
            "afterwards",
            "the check of what is left behind breaks",
            left_memory,
            control=True,
            short=True,
        ),
        Row(
            "left/control/foreign",
            "control: a foreign file beside the run is removed",
            "afterwards",
            "the check of foreign files breaks",
            left_foreign,
            control=True,
            short=True,
        ),
    ]


def ended_all(stage: Stage, processes: list, seconds: float = 300) -> list[Ended]:
    return [stage.end(process, seconds) for process in processes]


def resumed(stage: Stage) -> None:
    for ended in ended_all(stage, stage.ranks(LIVE)):
        told(ended, 0)
    stage.same_as("ranks")


def rank_killed(stage: Stage, part: str, rank: int, share: float) -> None:
    doing = PHASES[part][0]
    times = sum(event == f"doing {doing}" for _, event in stage.world.finished("ranks").started[0].events())
    # Only rank 0 keeps state.json: the other is killed from outside, when rank 0 says what it does.
    at = At(f"^doing {doing}$", 1 + int(share * times), 0.01 + 0.2 * share)
    processes = stage.ranks(
        LIVE, inject={0: (Injected(at, kill if rank == 0 else partial(kill_beside, str(stage.told))),)}
    )
    (stage.told / "victim").write_text(str(processes[1].pid))
    ended = ended_all(stage, processes)
    must(ended[rank].code == -9, f"the fault was not delivered: exit codes {[one.code for one in ended]}")
    told(ended[1 - rank], 2, GONE)
    state, verdict = look(stage.run())
    must(verdict == 1 and f"run.name={stage.run().name} run.resume=auto" in state, f"svco status: {verdict}, {state}")
    stage.nothing_is_left()
    resumed(stage)


def kill_beside(folder: str) -> None:
    os.kill(int(Path(folder, "victim").read_text()), signal.SIGKILL)


def rank_stopped(stage: Stage) -> None:
    at = At("read .*/train-", 6)
    processes = stage.ranks(LIVE, "run.timeout_minutes=1", inject={1: (Injected(at, suspend),)})
    began = time.monotonic()
    first = stage.end(processes[0], 400)
    told(first, 2, GONE)
    stage.notes.append(f"the other gave up after {time.monotonic() - began:.0f} s, imports and all")
    processes[1].send(signal.SIGCONT)
    second = stage.end(processes[1], 60)
    must(second.code not in (0, None), f"the stopped rank: exit code {second.code}")
    stage.nothing_is_left()
    resumed(stage)


def rank_slowed(stage: Stage) -> None:
    act = Injected(At("read .*/train-", 0), partial(time.sleep, 0.05))
    for ended in ended_all(stage, stage.ranks(LIVE, inject={1: (act,)})):
        told(ended, 0)
    stage.same_as("ranks")


def fewer(stage: Stage) -> None:
    stage.halfway("ranks")
    told(stage.train(LIVE), 0)
    stage.same_as("live", tolerance=1e-5)
    stage.same_as("ranks", tolerance=1e-5)


def more(stage: Stage) -> None:
    stage.halfway("live")
    for ended in ended_all(stage, stage.ranks(LIVE, count=3)):
        told(ended, 0)
    stage.same_as("live", tolerance=1e-5)


def full_other_ranks(stage: Stage) -> None:
    import json

    ds = stage.folder / "zero2.json"
    ds.write_text(json.dumps(json.loads((ROOT / "ds_configs" / "zero2.json").read_text())))
    full = ("model.tune=full", "model.reference=none", "objective.name=sft", "data.validation=", "data.heldout=")
    for ended in ended_all(stage, stage.ranks(*full, ds=ds)):
        told(ended, 0)
    for ended in ended_all(stage, stage.ranks(*full, ds=ds, count=1)):
        told(ended, 2, "2 ranks")


def launcher_ended(stage: Stage, who: str, number: int) -> None:
    port = launch.free_port()
    stage.ports.append(port)
    command = ["deepspeed", "--num_accelerators", "2", "--master_port", str(port), str(ROOT / "launchers" / "train.py")]
    command += ["--ds", str(stage.world.zero3), *stage.options("run", "auto", LIVE)]
    process = stage.anew(command)
    metrics = stage.run() / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        must(process.poll() is None and time.monotonic() < deadline, f"it did not begin: {stage.said_anew()[-500:]}")
        time.sleep(0.01)
    runner = psutil.Process(process.pid)
    (launcher,) = (p for p in runner.children() if "deepspeed.launcher.launch" in p.cmdline())
    {"deepspeed": runner, "launch.py": launcher}[who].send_signal(number)
    process.wait(200)
    deadline = time.monotonic() + 300
    while stage.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    stage.nothing_is_left()
    stage.notes.append(f"exit code {process.returncode}; {_state(stage)}")
    resumed(stage)


def _state(stage: Stage) -> str:
    return look(stage.run())[0].splitlines()[0].partition(": ")[2]


def worker_killed(stage: Stage) -> None:
    process = stage.start("data.workers=1", "model.reference=lockstep", "data.heldout=", inject=())
    deadline = time.monotonic() + 300
    killed = False
    while not killed and process.wait(0.01) is None and time.monotonic() < deadline:
        metrics = stage.run() / "metrics.jsonl"
        if metrics.exists() and metrics.read_text():
            for child in psutil.Process(process.pid).children():
                child.kill()
                killed = True
    ended = stage.end(process)
    must(killed, "the fault was not delivered")
    told(ended, 2, "loader")
    told(stage.train(LIVE), 0)
    stage.same_as("live")


def last_digit(stage: Stage) -> None:
    import json

    run = stage.adopt("ranks")
    lines = launch.metrics(run, timings=True)
    at = next(place for place, line in enumerate(lines) if line["step"] == 4 and "loss" in line)
    lines[at]["loss"] *= 1 + sys.float_info.epsilon
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage.same_as("ranks")


def left_process(stage: Stage) -> None:
    import faults.stage

    before = faults.stage.BEFORE_IT_COUNTS
    faults.stage.BEFORE_IT_COUNTS = 1
    try:
        stage.anew([sys.executable, "-c", "import time; time.sleep(60)"])
        stage.nothing_is_left()
    finally:
        faults.stage.BEFORE_IT_COUNTS = before


def left_memory(stage: Stage) -> None:
    port = launch.free_port()
    stage.ports.append(port)
    segment = Path("/dev/shm") / f"deepspeed_allreduce_buffer_0_127.0.0.1_{port}_0"
    segment.touch()
    try:
        stage.nothing_is_left()
    finally:
        segment.unlink()


def left_foreign(stage: Stage) -> None:
    file = stage.foreign()[0]
    text = file.read_text()
    file.unlink()
    try:
        stage.nothing_foreign_is_gone()
    except Broken:
        file.write_text(text)
        raise

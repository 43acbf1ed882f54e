"""The clock of the machine is set, forward and back, in the middle of a run.

The machine's own is left alone: libfaketime answers for it in the processes of the row, from a file that may change meanwhile.
Monotonic clocks are real, as they are when a clock is set.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from places import ROOT

from faults.stage import NotHere, Stage, must, told
from faults.table import Row

PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
DAY = 86400


def rows(_: int) -> list[Row]:
    found = [
        Row(
            f"clock/{name}",
            f"the clock is set {words} (libfaketime)",
            "in mid-run",
            "nothing is wrong: the same curve and weights, bit for bit; a second start meanwhile does not take it for dead",
            partial(set_to, seconds=seconds),
        )
        for name, words, seconds in (("forward", "a day forward", DAY), ("back", "a day back", -DAY))
    ]
    found += [
        Row(
            f"clock/dead/{name}",
            f"the run is killed and its last sign of life lies {words}",
            "after step 4",
            "it is known to be dead by its process, at once: the same curve and weights",
            partial(dead, seconds=seconds),
        )
        for name, words, seconds in (("future", "a day in the future", DAY), ("past", "a day ago", -DAY))
    ]
    found += [
        Row(
            f"clock/times/{name}",
            f"all files (run, shards, caches, base) have times {words}",
            "after step 4",
            "nothing is wrong: the same curve and weights, bit for bit",
            partial(touched, seconds=seconds),
        )
        for name, words, seconds in (("future", "ten years ahead", 3650 * DAY), ("epoch", "of 1970", None))
    ]
    return found


def library() -> str:
    for pattern in PLACES:
        if found := sorted(Path("/").glob(pattern[1:])):
            return str(found[0])
    raise NotHere("libfaketime is not installed: apt-get install libfaketime")


def set_to(stage: Stage, seconds: int) -> None:
    clock = stage.folder / "clock"
    clock.write_text("+0\n")
    real = {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    command = [sys.executable, str(ROOT / "launchers" / "train.py"), "--ds", "none", *stage.options("run", "auto")]
    process = stage.anew(command, real)
    metrics = stage.run() / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        must(process.poll() is None and time.monotonic() < deadline, f"it did not begin: {stage.said_anew()[-500:]}")
        time.sleep(0.01)
    clock.write_text(f"{seconds:+d}\n")
    process.send_signal(signal.SIGSTOP)
    stage.waits(second := stage.start())
    second.send(signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    must(process.wait(300) == 0, f"exit code {process.returncode}: {stage.said_anew()[-500:]}")
    must("Traceback" not in stage.said_anew(), "a traceback")
    import json

    state = json.loads((stage.run() / "state.json").read_text())
    apart = state["beat"] - time.time()
    must(abs(apart - seconds) < 3600, f"the fault was not delivered: the run's clock is {apart:.0f} s apart")
    stage.same_as("plain")


def dead(stage: Stage, seconds: int) -> None:
    import re

    run = stage.halfway()
    state = run / "state.json"
    state.write_text(re.sub(r'"beat": [\d.]+', f'"beat": {time.time() + seconds}', state.read_text()))
    began = time.monotonic()
    told(stage.svco("status", run), 1, "dead")
    told(stage.train(), 0)
    must(time.monotonic() - began < 150, "it waited for a dead run")
    stage.same_as("plain")


def touched(stage: Stage, seconds: int | None) -> None:
    stage.halfway()
    base = stage.base
    when = 1.0 if seconds is None else time.time() + seconds
    for file in stage.folder.rglob("*"):
        os.utime(file, (when, when))
    told(stage.train(f"model.base={base}"), 0)
    stage.same_as("plain")

"""A study under SLURM: what is submitted, and the way from submitting to collecting, with one element preempted.

Its queue is an emulation of SLURM's contract (tests/slurm_queue.py), and its runs are stand-ins here, real in
test_study_twin.py. Under a real SLURM of one node: launchers/results/2026-11-25_study_slurm.md.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import yaml
from places import ROOT
from slurm_queue import Queue

from svco.commands.study import run
from svco.commands.study.cells import cell_tasks
from svco.commands.study.conduct import first_of_run
from svco.commands.study.slurm import spans
from svco.commands.study.spec import Group, load_study

TWIN = "launchers/recipes/study_twin.yaml"
SCRIPT = ROOT / "launchers" / "study.slurm"

# Trains 4 "steps" and evaluates, as far as a study looks; fails where its run's folder says so.
WORK = """
import json, pathlib, signal, sys, time
import numpy as np
told = dict(word.split("=", 1) for word in sys.argv if "=" in word)
if sys.argv[2] == "train":
    run = pathlib.Path(told["run.root"]) / told["run.name"]
    run.mkdir(parents=True, exist_ok=True)
    if (run / "broken").exists():
        sys.exit("broken")
    at = run / "steps"
    print("from", at.read_text() if at.exists() else "0")
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    for step in range(int(at.read_text()) if at.exists() else 0, 4):
        at.write_text(str(step + 1))
        while step == 1 and (run / "linger").exists() and not stop:
            time.sleep(0.02)
        if stop:
            (run / "linger").unlink()
            sys.exit(75)
    score = 0.5 + float(told["optim.lr"])
    (run / "metrics.jsonl").write_text(json.dumps({"step": 4, "validation/pair_accuracy": score}) + "\\n")
else:
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(parents=True)
    logps = np.array([-4.0, -6.0, -9.0]) - np.zeros((4, 2, 1))
    np.savez(out / "heldout.npz", key=np.array(list("abcd")), contrast=np.array(["object"] * 4),
             kind=np.array([""] * 4), logps=logps, tokens=np.full((4, 2), 5))
    (out / "eval.json").write_text("{}")
"""


@pytest.fixture
def twin(tmp_path):
    """(queue, study, arguments that name it); the twin with stand-ins for training and evaluating."""
    (tmp_path / "work.py").write_text(WORK)
    tree = yaml.safe_load((ROOT / TWIN).read_text())
    tree |= {"launch": f"{sys.executable} {tmp_path / 'work.py'}", "root": str(tmp_path / "out")}
    file = tmp_path / "twin.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Queue(tmp_path / "slurm"), load_study(file), ("--recipe", str(file))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_from_submitting_to_collecting(twin):
    """A trial that fails keeps the cells back; submitted again, what is not finished is run; a preempted cell goes on."""
    queue, study, named = twin
    broken = run_of_trial(study, 1) / "broken"
    broken.parent.mkdir(parents=True)
    broken.touch()
    code, output = queue.study(*named, "--submit", "--jobs", "2", "--sbatch", "--partition=a --time=9")
    assert code == 0, output
    data, trials, cells = jobs = queue.submitted()
    assert output.count("sbatch ") == 3
    assert f"to collect: svco study {' '.join(named)} --root {study.root} --collect" in output
    assert all({"parsable": "", "partition": "a", "time": "9"}.items() <= job.options.items() for job in jobs)
    assert [job.options.get("array") for job in jobs] == [None, "0-3%2", "0-2%2"]
    assert [job.options.get("dependency") for job in jobs] == [None, "afterok:40", "afterok:50"]
    assert {"kill-on-invalid-dep": "yes"}.items() <= cells.options.items()
    queue.run(jobs)
    assert data.succeeded and trials.codes == {0: [0], 1: [1], 2: [0], 3: [0]} and not cells.codes
    code, output = queue.study(*named, "--collect")
    assert code == 75 and "trials: 3 of 4 are finished" in output and "waiting for their trials: 1" in output
    assert "S-VCO, VLF: lr 0.004: failed before its run began" in output
    assert "never begun: 2: BASE; DPO, VLF, seed 0" in output

    broken.unlink()
    (queue.folder / "busy").write_text("60\n60\n")
    code, output = queue.study(*named, "--submit")
    assert code == 2 and "scancel 60" in output, "no second set of jobs beside the first"
    (queue.folder / "busy").unlink()
    assert queue.study(*named, "--submit")[0] == 0
    trials, cells = again = queue.submitted()
    assert [job.options["array"] for job in again] == ["1", "0-2"]
    queue.run([trials])
    tasks = cell_tasks(study)
    assert [task.settings.get("optim.lr") for task in tasks] == [None, 0.004, 0.004], "what the trials chose"
    stopped = tasks[2].run
    stopped.mkdir()
    (stopped / "linger").touch()
    queue.run(again[1:], ("cells", 2, lambda: (stopped / "steps").exists() and (stopped / "steps").read_text() == "2"))
    assert cells.codes == {0: [0], 1: [0], 2: [0, 0]} and queue.requeued() == [f"{cells.number}_2"]
    log = (tasks[2].folder / "log.txt").read_text()
    assert [line for line in log.splitlines() if line.startswith("from")] == ["from 0", "from 2"]

    code, output = queue.study(*named, "--collect")
    assert code == 0 and "cells: 3 of 3 are finished" in output, output
    assert "DPO" in (queue.folder.parent / "out" / "report.md").read_text()
    code, output = queue.study(*named, "--submit")
    assert code == 0 and "Everything is finished" in output and queue.submitted() == []


def run_of_trial(study, number):
    from svco.commands.study.cells import trial_tasks

    return trial_tasks(study)[number].run


def test_the_study_at_7b_is_one_command(tmp_path):
    """Nothing is submitted, made or downloaded by a dry run, and there need be no SLURM for it."""
    done = subprocess.run(
        [sys.executable, "launchers/study.py", "--recipe", "launchers/recipes/study_llava15_7b.yaml",
         "--root", str(tmp_path / "out"), "--submit", "--dry-run", "--sbatch=--account=x"],
        capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data, trials, cells, collect = done.stdout.splitlines()
    assert all(line.startswith("sbatch --parsable ") and " --account=x " in line for line in (data, trials, cells))
    assert "--stage data" in data and "--array" not in data and "--gpus-per-node=0" in data
    assert "--array=0-63 --dependency=afterok:DATA_JOB" in trials and trials.endswith("--stage trials")
    assert "--array=0-48 --dependency=afterok:TRIALS_JOB" in cells and cells.endswith("--stage cells")
    assert collect.endswith("--collect")
    assert not (tmp_path / "out").exists()


def test_the_7b_study_has_the_rows_of_the_small_one():
    tiny, large = (load_study(ROOT / "launchers" / "recipes" / f"study_{n}.yaml") for n in ("tiny", "llava15_7b"))
    main = next(group for group in tiny.groups if group.name == "main")
    assert set(main.cells) <= set(large.groups[0].cells)
    assert {("mDPO", "VLF"), ("S-VCO", "VLF"), ("DPO", "VLF")} <= set(large.groups[0].cells)
    assert tiny.methods == large.methods and set(large.benchmarks) == {"mmvp", "cv_bench"} and len(large.seeds) == 3


def test_without_slurm_one_is_told_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "launchers/study.py", "--recipe", TWIN, "--root", str(tmp_path), "--submit"],
        capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and "There is no sbatch here" in done.stderr and "Traceback" not in done.stderr


def test_two_rows_with_one_run_are_one_job():
    study = load_study(ROOT / TWIN)
    study = replace(
        study, trials=(), groups=(*study.groups, Group("again", rows=(("DPO", "VLF"),), tests=("heldout",)))
    )
    tasks = cell_tasks(study)
    assert [first_of_run(tasks, n) for n in range(len(tasks))] == [0, 1, 2, 3, 2]


@pytest.mark.parametrize(
    ("numbers", "told"), [([0, 3, 7, 8, 9], "0,3,7-9"), ([4], "4"), (range(3), "0-2"), ([1, 2, 5], "1-2,5")]
)
def test_spans(numbers, told):
    assert spans(numbers) == told


def test_a_stopped_command_is_over_when_its_last_process_is(tmp_path):
    """The deepspeed command: gone at once of SIGTERM, while what it started still saves."""
    rank = (
        "import pathlib, signal, time; stop = []; signal.signal(signal.SIGTERM, lambda *_: stop.append(1));"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "while not stop: time.sleep(0.01)\n"
        f"time.sleep(1); pathlib.Path({str(tmp_path / 'saved')!r}).touch()"
    )
    launcher = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {rank!r}]); time.sleep(60)"
    children, codes = run.Children(), []
    line = [sys.executable, "-c", launcher]
    thread = threading.Thread(target=lambda: codes.append(children.run(line, tmp_path / "log", 1)))
    thread.start()
    until = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    children.stop(signal.SIGUSR1, None)
    thread.join(30)
    assert codes == [-signal.SIGTERM]
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("code", "send", "state", "restarts", "requeued", "ends", "says"),
    [
        (0, None, "RUNNING", 0, False, 0, ""),
        (1, None, "RUNNING", 0, False, 1, ""),
        (2, "USR1", "RUNNING", 0, False, 2, ""),  # it failed while it was being stopped
        (75, None, "RUNNING", 0, True, 0, "queued again"),
        (75, "USR1", "RUNNING", 29, True, 0, "queued again"),
        (75, "USR1", "RUNNING", 30, False, 75, "started again 30 times already"),
        (75, "TERM", "RUNNING", 0, True, 0, "queued again"),  # preempted
        (75, "TERM", "CANCELLED", 0, False, 75, "state is CANCELLED"),  # scancel
        (None, "USR1", "RUNNING", 0, True, 0, "queued again"),  # before python listens
    ],
)
def test_the_job_script(tmp_path, code, send, state, restarts, requeued, ends, says):
    """``code`` None: the signal ends the stand-in."""
    queue = Queue(tmp_path / "slurm")
    (queue.folder / "state").write_text(state)
    listen = "" if code is None else "trap 'echo USR1 > got; stop=1' USR1; trap 'echo TERM > got; stop=1' TERM"
    wait = f'n=0; while [ {int(send is not None)} = 1 ] && [ -z "${{stop-}}" ] && [ $n -lt 400 ]; do n=$((n+1)); sleep 0.05; done'
    stand_in = f'#!/bin/bash\n{listen}\necho "$*" > called\ntouch ready\n{wait}\nexit {code or 0}\n'
    (queue.folder / "bin" / "python").write_text(stand_in)
    (queue.folder / "bin" / "python").chmod(0o755)
    told = {
        "SLURM_JOB_ID": "40",
        "SLURM_ARRAY_JOB_ID": "40",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    process = subprocess.Popen(
        ["bash", str(SCRIPT), "--recipe", "a b.yaml", "--stage", "cells"],
        cwd=tmp_path, env=queue.environment | told, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    while not (tmp_path / "ready").exists() and process.poll() is None:
        time.sleep(0.01)
    if send:
        process.send_signal(signal.Signals[f"SIG{send}"])
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, says in output) == (ends, True), output
    assert (tmp_path / "called").read_text() == "-u -m svco study --recipe a b.yaml --stage cells --task 3\n"
    assert queue.requeued() == (["40_3"] if requeued else [])
    assert not send or code is None or (tmp_path / "got").read_text() == f"{send}\n"

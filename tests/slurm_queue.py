"""SLURM's contract in a folder: sbatch, squeue and scontrol that keep a queue there, and what runs it, one element at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import launch
from places import ROOT

SBATCH = """
import json, pathlib, sys
queue = pathlib.Path(__file__).resolve().parent.parent / "queue.jsonl"
number = 40 + 10 * (len(queue.read_text().splitlines()) if queue.exists() else 0)
with queue.open("a") as file:
    file.write(json.dumps({"number": number, "line": sys.argv[1:]}) + "\\n")
print(number)
"""
SCONTROL = """
import pathlib, sys
place = pathlib.Path(__file__).resolve().parent.parent
if sys.argv[1] == "requeue":
    with (place / "requeued").open("a") as file:
        file.write(sys.argv[2] + "\\n")
else:
    print("JobId=1 JobName=svco\\n   JobState=" + (place / "state").read_text() + " Reason=None")
"""
SQUEUE = """
import pathlib
busy = pathlib.Path(__file__).resolve().parent.parent / "busy"
print(busy.read_text() if busy.exists() else "")
"""


@dataclass
class Job:
    """What sbatch was asked."""

    number: int
    options: dict[str, str]
    script: str
    arguments: list[str]
    codes: dict[int | None, list[int]] = field(default_factory=dict)
    """Element (None: no array) -> exit code of every attempt."""

    @property
    def elements(self) -> list[int | None]:
        spec = self.options.get("array")
        if spec is None:
            return [None]
        ends = [part.split("-") for part in spec.partition("%")[0].split(",")]
        return [n for first, *last in ends for n in range(int(first), int((last or [first])[0]) + 1)]

    @property
    def succeeded(self) -> bool:
        return bool(self.codes) and all(codes[-1] == 0 for codes in self.codes.values())


class Queue:
    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name, body in {"sbatch": SBATCH, "scontrol": SCONTROL, "squeue": SQUEUE}.items():
            (folder / "bin" / name).write_text(f"#!{sys.executable}\n{body}")
            (folder / "bin" / name).chmod(0o755)
        (folder / "state").write_text("RUNNING")
        self.environment = launch.ENVIRONMENT | {"PATH": f"{folder / 'bin'}:{launch.ENVIRONMENT['PATH']}"}
        self._seen = 0

    def study(self, *arguments: str) -> tuple[int, str]:
        """(exit code, output) of launchers/study.py on the machine that submits."""
        done = subprocess.run(
            [sys.executable, "launchers/study.py", *arguments],
            cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def submitted(self) -> list[Job]:
        """Jobs since the last call."""
        lines = (self.folder / "queue.jsonl").read_text().splitlines()[self._seen :]
        self._seen += len(lines)
        return [_job(**json.loads(line)) for line in lines]

    def requeued(self) -> list[str]:
        file = self.folder / "requeued"
        return file.read_text().split() if file.exists() else []

    def run(self, jobs: list[Job], preempt=None) -> None:
        """Runs them in order, but none that waits for one of them that failed.

        ``preempt``: (stage, element, when it gets USR1, once).
        """
        numbers = {str(job.number): job for job in jobs}
        for job in jobs:
            before = job.options.get("dependency", "").removeprefix("afterok:")
            if before in numbers and not numbers[before].succeeded:
                continue
            for element in job.elements:
                when = preempt[2] if preempt and preempt[:2] == (job.arguments[-1], element) else None
                job.codes[element] = self._element(job, element, when)

    def _element(self, job: Job, element: int | None, when) -> list[int]:
        codes: list[int] = []
        while True:
            waiting = len(self.requeued())
            codes.append(self._attempt(job, element, len(codes), None if codes else when))
            if len(self.requeued()) == waiting:
                return codes
            assert self.requeued()[-1] == (str(job.number) if element is None else f"{job.number}_{element}")

    def _attempt(self, job: Job, element: int | None, restarts: int, when) -> int:
        told = {"SLURM_JOB_ID": str(job.number), "SLURM_CPUS_PER_TASK": "2", "SLURM_RESTART_COUNT": str(restarts)}
        if element is not None:
            told |= {"SLURM_ARRAY_JOB_ID": str(job.number), "SLURM_ARRAY_TASK_ID": str(element)}
        log = self.folder / f"{job.number}-{element}.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                ["bash", job.script, *job.arguments],
                cwd=ROOT, env=self.environment | told, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            while when and process.poll() is None:
                if when():
                    process.send_signal(signal.SIGUSR1)
                    break
                time.sleep(0.02)
            return process.wait(timeout=600)


def _job(number: int, line: list[str]) -> Job:
    options = {}
    while line[0].startswith("--"):
        name, _, value = line.pop(0)[2:].partition("=")
        options[name] = value
    return Job(number, options, line[0], line[1:])

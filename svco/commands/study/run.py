"""Runs the tasks of a study, a few at a time, and goes on where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ...basics.errors import RESUBMIT
from ...basics.files import append, write_whole, writing
from ...basics.progress import Progress
from ...basics.secrets import redacted
from ..evaluation import RESULT
from .cells import Task, unique

LOG = "log.txt"
_LOG_TAIL = 12
"""Lines of a failed command that are shown."""
SAVE_SECONDS = 1800.0
"""How long the processes of a command that was stopped are waited for: as long as ranks wait for each other."""


@dataclass
class Outcome:
    """How the tasks went."""

    finished: int = 0
    """Tasks that are done, those of earlier runs included."""
    stopped: list[Task] = field(default_factory=list)
    """Tasks whose run was asked to stop and can go on."""
    failed: list[tuple[Task, str]] = field(default_factory=list)
    """Tasks whose command failed, with the end of its log."""
    asked: bool = False
    """Whether a stop was asked for, although all that ran may have come to its end just then."""

    @property
    def code(self) -> int:
        """Exit code: 0 all finished, 75 some can go on, 1 some failed."""
        return 1 if self.failed else RESUBMIT if self.stopped else 0


class Children:
    """The commands that run now, so that a signal to the study reaches each of them, and none outlives it."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopping = False

    def run(self, line: Sequence[str], log: Path, threads: int) -> int:
        """Runs one command with its output appended to ``log``; its exit code. Not begun once the study is stopping."""
        if self.stopping:
            return RESUBMIT
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        append(log, redacted(f"$ {' '.join(line)}\n"))
        with writing(log):
            output = log.open("ab")
        with output:
            child = subprocess.Popen(
                line, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self.running.add(child)
            if self.stopping:  # asked while it was being started
                _end(child.pid)
            try:
                code = child.wait()
                if self.stopping:
                    # The deepspeed command is gone at once while its ranks still save.
                    _wait_for_group(child.pid)
                return code
            finally:
                self.running.discard(child)

    def stop(self, number: int, frame: Any) -> None:
        """Passes a signal on as SIGTERM, at which a run saves and exits with 75; only once, lest it disturb a launcher's wait."""
        if self.stopping:
            return
        self.stopping = True
        for child in list(self.running):
            _end(child.pid)


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)


def _wait_for_group(group: int) -> None:
    """Returns when no process of the group is left, or after SAVE_SECONDS."""
    deadline = time.monotonic() + SAVE_SECONDS
    while _lives(group) and time.monotonic() < deadline:
        time.sleep(0.2)


def _lives(group: int) -> bool:
    """Whether a process of the group is more than a zombie, which nobody may be there to bury."""
    import psutil

    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return False


@contextmanager
def heeding_signals() -> Iterator[Children]:
    """Inside, SIGTERM, SIGUSR1 and Ctrl-C make the commands that run save and end, and no more begin: also between two stages."""
    children = Children()
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, children.stop) for number in heard}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_tasks(
    tasks: Sequence[Task], jobs: int, progress: Progress, what: str, children: Children | None = None
) -> Outcome:
    """Runs what is not finished of ``tasks``, ``jobs`` at a time; several groups may hold one task: it runs once.

    A failed task does not end the others. A stop that ``children`` hears of lets the rest wait for the next call; None: one is
    heard of for as long as this runs.
    """
    if children is None:
        with heeding_signals() as children:
            return run_tasks(tasks, jobs, progress, what, children)
    outcome = Outcome()
    waiting = [task for task in unique(tasks) if not task.finished]
    outcome.finished = sum(task.finished for task in tasks)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        # Two groups may ask the same run for different tests: a folder belongs to one task at a time.
        folders: dict[Path, Lock] = defaultdict(Lock)
        futures = {pool.submit(_run, task, children, threads, folders[task.folder]): task for task in waiting}
        for future in progress(as_completed(futures), what, total=len(futures)):
            code, tail = future.result()
            if code == 0:
                outcome.finished += 1
            elif code == RESUBMIT or children.stopping:
                outcome.stopped.append(futures[future])
            else:
                outcome.failed.append((futures[future], tail))
    outcome.asked = children.stopping
    return outcome


def _run(task: Task, children: Children, threads: int, folder: Lock) -> tuple[int, str]:
    """(exit code, end of the log when it is not 0) of a task's commands that are not done yet."""
    with folder:
        return _run_alone(task, children, threads)


def _run_alone(task: Task, children: Children, threads: int) -> tuple[int, str]:
    task.folder.mkdir(parents=True, exist_ok=True)
    log = task.folder / LOG
    for command in task.commands:
        done = task.folder / f"{command.name}.done"
        if done.exists():
            continue
        if task.evaluation and command.name == task.evaluation.name and (task.evaluation / RESULT).exists():
            write_whole(done, "0.0\n")  # stopped between its last file and its end: it would refuse to write over it
            continue
        start = time.monotonic()
        code = children.run(command.line, log, threads)
        if code:
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""  # it may not have begun
            return code, "\n".join(text.splitlines()[-_LOG_TAIL:])
        write_whole(done, f"{time.monotonic() - start:.1f}\n")
    return 0, ""


def seconds(task: Task) -> float:
    """What a finished task's commands took, wall time."""
    return sum(float((task.folder / f"{command.name}.done").read_text()) for command in task.commands)

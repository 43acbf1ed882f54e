"""Processes of a row: forked from one that has the imports done (forked.py), watched from the inside by an audit hook, and found
again.

Python's audit hooks tell of every file that is opened, renamed or removed just before it happens: an instant of a run is the n-th
event of a kind, on any machine at any speed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from forked import forks

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
BEFORE_IT_COUNTS = 20.0
"""Seconds that a process and its children get to end after the process that was waited for."""


@dataclass(frozen=True)
class At:
    """An instant of a process."""

    pattern: str
    """What the line of an event matches: ``doing WHAT``, or an audit event and its file (``os.rename …/step-000002``)."""
    nth: int = 1
    """The how manieth such event, from 1; 0: each of them."""
    after: float = 0.0
    """Seconds after it; 0: just before what it tells of."""


@dataclass(frozen=True)
class Injected:
    """Something done to a process from its inside."""

    at: At
    """When."""
    act: Callable[[], None]
    """What; picklable."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def suspend() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Process:
    """A process that was started, and where its output goes."""

    worker: BaseProcess
    output: Path
    trace: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.worker.pid

    def wait(self, seconds: float = 120) -> int | None:
        """Its exit code (minus the signal that ended it); None when it has not ended by then."""
        self.worker.join(seconds)
        return self.worker.exitcode

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def events(self) -> list[tuple[float, str]]:
        """(seconds from its start, event) of all that its audit hook saw."""
        text = self.trace.read_text(errors="replace") if self.trace.exists() else ""
        lines = (line.split(" ", 1) for line in text.splitlines(keepends=True) if line.endswith("\n"))
        return [(float(when), what.rstrip("\n")) for when, what in lines]

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(
    arguments: list[str],
    output: Path,
    folder: Path,
    injected: tuple[Injected, ...] = (),
    environment: dict[str, str] | None = None,
) -> Process:
    """``python ARGUMENTS`` in a session of its own. Events are those of files in ``folder``."""
    trace = output.with_suffix(".events")
    watch = partial(_watch, str(trace), str(folder), injected)
    return Process(forks.start(arguments, output, environment or {}, watch), output, trace)


def _watch(trace: str, folder: str, injected: tuple[Injected, ...]) -> None:
    """Tells each event in ``folder`` to ``trace`` and does what is ``injected`` at its instant."""
    lines = Path(trace).open("a", buffering=1)  # noqa: SIM115 (open for as long as the process lives)
    began, seen, owner = time.monotonic(), [0] * len(injected), os.getpid()
    busy = threading.local()

    def happened(event: str) -> None:
        lines.write(f"{time.monotonic() - began:.4f} {event}\n")
        for place, one in enumerate(injected):
            if re.search(one.at.pattern, event):
                seen[place] += 1
                if one.at.nth in (0, seen[place]):
                    if one.at.after:
                        threading.Timer(one.at.after, one.act).start()
                    else:
                        one.act()

    def hook(name: str, arguments: tuple) -> None:
        if name not in WATCHED or getattr(busy, "now", False) or os.getpid() != owner:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
        if name in ("os.remove", "os.rmdir") and arguments[1] != -1:  # rmtree goes by open folders
            path = f"{os.readlink(f'/proc/self/fd/{arguments[1]}')}/{path}"
        if not path.startswith(folder) or "/tensorboard/" in path:
            return
        if name == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            name = "read"
        busy.now = True
        try:
            target = f" -> {os.fsdecode(arguments[1])}" if name == "os.rename" else ""
            if name == "os.rename" and target.endswith("/state.json"):
                _tell_doing(path, happened)
            happened(f"{name} {path}{target}")
        finally:
            busy.now = False

    sys.addaudithook(hook)


_DOING = [""]


def _tell_doing(state: str, happened: Callable[[str], None]) -> None:
    """What the run says it does now, as an event of its own."""
    found = re.search(r'"doing": "(.*)"', Path(state).read_text())
    if found and found[1] != _DOING[0]:
        _DOING[0] = found[1]
        happened(f"doing {found[1]}")


def of_session(session: int) -> list[int]:
    """The processes of ``session``, zombies left out."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def with_mark(mark: str) -> list[int]:
    """The processes whose environment holds ``mark``: those that were started anew, and theirs."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            marked = mark.encode() in Path(f"/proc/{pid}/environ").read_bytes()
            if marked and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found

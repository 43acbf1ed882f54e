"""Processes of a row: forked from one that has the imports done, watched from the inside by an audit hook, and found again.

A start costs seconds of imports and a row needs two or three, so they are made once, in a fork server (a fresh process that has
imported the product and run nothing of it). Python's audit hooks tell of every file that is opened, renamed or removed just
before it happens: an instant of a run is the n-th event of a kind, on any machine at any speed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from places import ROOT

PRELOADED = (
    *("svco.cli", "svco.run.train", "svco.run.outcome", "svco.run.start", "svco.scores.sheet", "svco.export.merge"),
    *(
        "svco.families.llava",
        "svco.families.text",
        "torch",
        "torch.utils.tensorboard",
        "matplotlib.pyplot",
        "peft",
        "webdataset",
    ),
    *(
        "transformers.models.llava.modeling_llava",
        "transformers.models.clip.modeling_clip",
        "safetensors.numpy",
        "deepspeed",
    ),
    *("transformers.models.clip.image_processing_pil_clip", "transformers.models.llama.modeling_llama"),
)
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

    worker: multiprocessing.process.BaseProcess
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


class Forks:
    """The fork server, started at first use and once a Python process."""

    def __init__(self) -> None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def start(
        self,
        arguments: list[str],
        output: Path,
        folder: Path,
        injected: tuple[Injected, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> Process:
        """``python ARGUMENTS`` in a session of its own. Events are those of files in ``folder``."""
        trace = output.with_suffix(".events")
        told = (arguments, str(output), str(trace), str(folder), injected, environment or {})
        worker = self._context.Process(target=_be, args=told)
        worker.start()
        return Process(worker, output, trace)


forks = Forks()


def _be(
    arguments: list[str],
    output: str,
    trace: str,
    folder: str,
    injected: tuple[Injected, ...],
    environment: dict[str, str],
) -> None:
    """Becomes the program ``arguments``."""
    os.setsid()
    told = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)
    os.chdir(ROOT)
    _watch(trace, folder, injected)
    sys.argv = arguments
    # As the interpreter ends a program: multiprocessing would take its own way out, with its own words for an exception.
    code = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.exit(code)


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

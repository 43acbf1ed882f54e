"""``state.json`` in a run's folder: how the run is, told by rank 0 while it runs, and how it ended.

A launcher's exit code says little (DeepSpeed's returns 0 for killed ranks): this file is what scripts and people go by.
It is always replaced whole, so a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..basics.errors import RESUBMIT, Stopped, UserError, first_line
from ..basics.files import write_whole
from ..basics.secrets import redacted_tree
from ..basics.strict_json import json_text
from .lock import FolderLock

STATE = "state.json"
BEAT_SECONDS = 10.0
"""Seconds between two heartbeats of a run, whatever it is doing."""
STALE_SECONDS = 180.0
"""A run whose heart has not beaten for this long is over. File systems of clusters show a change up to a minute late."""
STATES = ("running", "stopped", "finished", "failed")


@dataclass
class RunState:
    """What the file holds."""

    state: str = "running"
    """``running``, ``stopped`` (asked to, and can be continued), ``finished`` or ``failed``."""
    doing: str = "starting"
    """What it does while it runs."""
    step: int = 0
    """Optimiser steps done."""
    steps: int = 0
    """Optimiser steps of the whole run."""
    moved: float = 0.0
    """When the last step ended, or what it does now began (seconds since 1970): a heart beats on while ranks wait."""
    timeout_minutes: float = 0.0
    """How long ranks wait for each other before they give up (``run.timeout_minutes``); 0: not known."""
    seconds_a_step: float = 0.0
    """Mean over the steps of this process, with everything between them; 0: not known yet."""
    reason: str = ""
    """Why it stops or has stopped; the first line of what it failed with."""
    exit_code: int | None = None
    """Of every rank, once it is over."""
    started: float = 0.0
    """When this process began (seconds since 1970)."""
    beat: float = 0.0
    """When the file was written last (seconds since 1970)."""
    host: str = ""
    """Host of rank 0."""
    pid: int = 0
    """Process of rank 0 on that host."""
    namespace: str = ""
    """Process namespace that ``pid`` counts in: two containers may share a host's name."""
    ticks: int = 0
    """When that process began, in the kernel's ticks since its boot: no later process of the same number has it."""
    boot: str = ""
    """Which boot of the host those count from; unlike times of day, neither changes when the clock is set."""
    ranks: int = 1
    """Number of processes."""
    command: tuple[str, ...] = ()
    """The command line of a rank."""

    @classmethod
    def read(cls, folder: Path) -> RunState | None:
        """The state of the run in ``folder``; None where there is none that can be read."""
        try:
            found = _printable(json.loads((folder / STATE).read_text(encoding="utf-8")))
            state = cls(**{f.name: found[f.name] for f in fields(cls) if f.name in found or f.name not in _NEW})
            return state if state._is_one() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _is_one(self) -> bool:
        """Whether every field is of its kind: a file that a disk damaged may still be JSON."""
        alike = all(
            isinstance(getattr(self, f.name), (int, float) if isinstance(f.default, float) else type(f.default))
            for f in fields(self)
            if f.name not in ("exit_code", "command")
        )
        return alike and self.state in STATES and isinstance(self.command, (list, tuple))

    def write(self, folder: Path) -> None:
        write_whole(folder / STATE, json_text(redacted_tree(asdict(self)), indent=1))

    def verdict(self, now: float) -> str:
        """``state``, or ``dead`` for one that says it is running and is not."""
        return "dead" if self.state == "running" and self.gone(now) else self.state

    def gone(self, now: float) -> str:
        """How one knows that the process is no more, or an empty string. One that can be looked up is alive as long as it is
        there, suspended or not, whatever clocks say."""
        if (self.host, self.namespace) == _here():
            return "" if self._is_there() else f"there is no process {self.pid} on {self.host} any more"
        if now - self.beat > STALE_SECONDS:
            return f"no sign of life from {self.host} for {now - self.beat:.0f} s"
        return ""

    @property
    def suspended(self) -> bool:
        """Whether rank 0's process is there and stopped by a signal; False of another host's, which cannot be looked up."""
        return (self.host, self.namespace) == _here() and _stat(self.pid)[:1] in (["T"], ["t"])

    def _is_there(self) -> bool:
        born = _born(self.pid)
        if self.boot or born is None:
            return born == (self.ticks, self.boot)
        import psutil  # a file of an earlier version: by the time of day

        return psutil.Process(self.pid).create_time() <= self.started + 1


_NEW = ("ticks", "boot", "moved", "timeout_minutes")
"""Fields that files of earlier versions lack."""


def _printable(tree: Any) -> Any:
    """Without control characters, with which a text from somebody else would play with the terminal."""
    if isinstance(tree, str):
        return "".join(letter if letter.isprintable() else " " for letter in tree)
    if isinstance(tree, list):
        return [_printable(item) for item in tree]
    return {key: _printable(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _here() -> tuple[str, str]:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return socket.gethostname(), namespace


def _born(pid: int) -> tuple[int, str] | None:
    """(start in ticks since boot, the boot) of process ``pid``; None where there is none, or only its remains (a zombie)."""
    found = _stat(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if not found or found[0] in "ZX" else (int(found[19]), boot)


def _stat(pid: int) -> list[str]:
    """What the kernel says of process ``pid``, its state first; empty where there is none."""
    try:
        # The name in parentheses may hold spaces and parentheses itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Heartbeat:
    """Keeps the state file of a run up to date, inside ``with``; on ranks above 0 (``enabled`` False) does nothing.

    It beats in a thread of its own: loading and long steps are signs of life too. Leaving tells how the run ended.
    """

    def __init__(self, folder: Path, enabled: bool, ranks: int, command: tuple[str, ...], timeout_minutes: float = 0.0):
        self.folder, self.enabled = folder, enabled
        host, namespace = _here()
        ticks, boot = _born(os.getpid()) or (0, "")
        self._state = RunState(
            started=time.time(),
            host=host,
            pid=os.getpid(),
            namespace=namespace,
            ticks=ticks,
            boot=boot,
            ranks=ranks,
            command=command,
            timeout_minutes=timeout_minutes,
        )
        self._first: tuple[float, int] | None = None
        """(when it was done, number) of the first step of this process."""
        self._lock = threading.Lock()
        self._left = threading.Event()

    def __enter__(self) -> Heartbeat:
        if self.enabled:
            self.tell()
            threading.Thread(target=self._beat, name="svco-heartbeat", daemon=True).start()
        return self

    def __exit__(self, _kind: type | None, error: BaseException | None, _traceback: Any) -> None:
        self._left.set()
        if error is None:
            self.tell(state="finished", doing="", exit_code=0)
        elif isinstance(error, Stopped):
            self.tell(state="stopped", doing="", reason=str(error), exit_code=RESUBMIT)
        elif isinstance(error, UserError):
            self.tell(state="failed", reason=first_line(error), exit_code=2)
        else:
            said, kind = first_line(error), type(error).__name__
            reason = said if said == kind else f"{kind}: {said}"
            self.tell(state="failed", reason=reason, exit_code=130 if isinstance(error, KeyboardInterrupt) else 1)

    def tell(self, **changes: Any) -> None:
        """Changes fields of the state and writes it."""
        if not self.enabled:
            return
        with self._lock:
            now = time.time()
            moved = {"moved": now} if "doing" in changes else {}
            vars(self._state).update(changes | moved, beat=now)
            try:
                self._state.write(self.folder)
            except OSError as error:
                # A full or absent disk ends the run where it must be written to, not here.
                print(f"warning: {self.folder / STATE} cannot be written: {error}", file=sys.stderr, flush=True)

    def step(self, step: int, stop: str = "") -> None:
        """One step more is done, after which the run stops if there is a reason to: the next beat says so."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, step)
        began, first = self._first
        self._state.step, self._state.reason, self._state.moved = step, stop, time.time()
        if step > first:
            self._state.seconds_a_step = (now - began) / (step - first)

    def moved(self) -> None:
        """Something between two steps has got on: the next beat says so."""
        self._state.moved = time.time()

    def _beat(self) -> None:
        while not self._left.wait(BEAT_SECONDS):
            self.tell()


def wait_until_over(folder: Path, lock: FolderLock) -> None:
    """Returns when the run in ``folder`` is this process's alone: ``lock`` is taken, and where storage has none, nobody gives
    signs of life. UserError when another process works on it that has not been asked to stop, or does not let go.

    Ranks whose launcher is gone may still be saving, and a host that died is missed only after a while.
    """
    first, began = None, time.monotonic()
    while not (taken := lock.take()) or _is_running(folder):
        state = RunState.read(folder) or RunState()
        if taken:
            lock.release()
        if first is None:
            first = state
            print(f"waiting for process {first.pid} on {first.host} to leave {folder}", file=sys.stderr, flush=True)
        waited = time.monotonic() - began
        if (state.beat != first.beat and not state.reason) or waited > STALE_SECONDS + 2 * BEAT_SECONDS:
            silent = "" if state.beat != first.beat else f", without a sign of life for {waited:.0f} s (suspended?)"
            raise UserError(
                f"The run {folder} is running: {state.doing}, step {state.step} of {state.steps}, process {state.pid} on "
                f"{state.host}{silent}. Wait for it, stop it (kill -USR1 {state.pid}), or choose another run.name."
            )
        time.sleep(1)


def _is_running(folder: Path) -> bool:
    state = RunState.read(folder)
    return state is not None and state.verdict(time.time()) == "running"

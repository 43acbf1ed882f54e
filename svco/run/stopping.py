"""What ends a run before its last step, agreed by all ranks: a signal, the wall, a launcher that is gone.

SIGTERM or SIGUSR1 to any rank, the end of ``run.time_limit``, and the death of what started the ranks are requests to stop.
Ranks agree on them at the end of every step (one small reduction) and between two batches of a validation, of the held-out
table and of a cached reference; then they leave together, after a save. Loading, a save, and a step are never cut short.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import Stopped
from ..basics.signals import STOP_SIGNALS

_WALL, _ORPHANED = "its time limit is near", "its launcher is gone"
_REASONS = ("", _WALL, "SIGUSR1", "SIGTERM", _ORPHANED)
"""What is reduced is the place in this list; of several reasons the last wins."""
_POLL_SECONDS = 0.5
_LAPS = 32
"""Laps that say how long the next one may take."""


class StopRequests:
    """One rank's ear for requests to stop. Listens inside ``with``; without it there is nothing to hear but the time limit."""

    def __init__(self, world: World, limit: float = 0.0, now: Callable[[], float] = time.monotonic):
        """``limit``: seconds from now at which the process must be over; 0: none."""
        self.world, self.limit, self.now = world, limit, now
        self._began = now()
        self._lap_began: float | None = None
        self._kinds: dict[str, deque[float]] = {}
        self._laps = deque[float]()
        self._save = 0.0
        self._asked = 0
        self._agreed = ""
        self._leaving = threading.Event()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        """Call it before the ranks are joined: it is from ``RANK`` that it knows a launcher, whose death it then watches for.

        Python started by hand has no launcher: there the end of the shell (nohup, setsid, tmux) must not end the run.
        """
        for number in STOP_SIGNALS:
            self._handlers[number] = signal.signal(number, lambda number, _: self._ask(signal.Signals(number).name))
        if "RANK" in os.environ:
            threading.Thread(target=self._watch, args=(_parents(),), name="svco-launcher", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._leaving.set()
        if kind is Stopped:
            # On its way out with 75 it is not to be killed before it has said so. Python gives signals back to the system at the
            # very end of a process, but for those that are ignored.
            atexit.register(_ignore_stop_signals)
        else:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def agreed(self) -> str:
        """Why all ranks stop now, or an empty string. A collective, and the end of a lap."""
        now = self.now()
        if self._lap_began is not None:
            self._laps.append(now - self._lap_began)
        self._lap_began = now
        if self.world.is_main and self._wall_is_near():
            self._ask(_WALL)
        if not self._agreed:
            self._agreed = _REASONS[self.world.highest(self._asked)]
            if self._agreed:
                _drop_lost_outputs()
        return self._agreed

    def begin(self, what: str) -> None:
        """From here on laps are of the kind ``what``: those of another kind do not say how long they take."""
        self._laps = self._kinds.setdefault(what, deque(maxlen=_LAPS))
        self._lap_began = self.now()

    def stopping_between(self, items: Iterable[Any]) -> Iterable[Any]:
        """``items``, raising Stopped between two of them once a stop is agreed. As many on every rank."""
        return _Watched(self, items)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save, whose time is no lap's and is what the time limit leaves room for."""
        before = self.now()
        yield
        self.saved(self.now() - before)
        self._lap_began = self.now()

    def saved(self, seconds: float) -> None:
        """Tells how long a save took, here or before this process."""
        self._save = max(self._save, seconds)

    def _wall_is_near(self) -> bool:
        """Whether one more lap and a save might not fit before the limit, by rank 0's clock.

        Kept free are one and a half times the longest of the last 32 laps (a lap: a step with its log, or a batch of a
        validation), one and a half times the longest save seen (5% of the limit before there was one), and 1% of the limit.
        """
        if not self.limit:
            return False
        save = 1.5 * self._save or 0.05 * self.limit
        needed = 1.5 * max(self._laps, default=0.0) + save + 0.01 * self.limit
        return self.now() - self._began + needed > self.limit

    def _ask(self, reason: str) -> None:
        self._asked = max(self._asked, _REASONS.index(reason))

    def _watch(self, parents: dict[int, int]) -> None:
        while not self._leaving.wait(_POLL_SECONDS):
            if any(_parent(pid) != parent for pid, parent in parents.items()):
                self._ask(_ORPHANED)
                return


def _ignore_stop_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Watched:
    """See :meth:`StopRequests.stopping_between`; keeps the length of what it goes over."""

    def __init__(self, stops: StopRequests, items: Any):
        self.stops, self.items = stops, items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            if reason := self.stops.agreed():
                raise Stopped(reason)
            yield item


def _parents() -> dict[int, int]:
    """{pid: its parent now} of the processes whose orphaning means that the launcher is gone: this one and, under the
    ``deepspeed`` command, its launch.py, which that command starts and leaves behind when it is killed.

    Parents are polled: PR_SET_PDEATHSIG fires when the parent's *thread* ends, knows no grandparent, and is Linux's only.
    """
    import psutil

    found = {os.getpid(): os.getppid()}
    try:
        parent = psutil.Process(os.getppid())
        if "deepspeed.launcher.launch" in parent.cmdline():
            above = psutil.Process(parent.ppid())
            if any(Path(word).name == "deepspeed" or word == "deepspeed.launcher.runner" for word in above.cmdline()):
                found[parent.pid] = above.pid
    except psutil.Error:
        pass  # it may not be looked at: then its own orphaning is all there is to see
    return found


def _parent(pid: int) -> int | None:
    """The parent of process ``pid``, or None when there is no such process."""
    if pid == os.getpid():
        return os.getppid()
    import psutil

    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return None


def _drop_lost_outputs() -> None:
    """Sends output that nobody reads any more to /dev/null: a signal to ``deepspeed … | tee log`` ends tee at once, and the next
    line of the progress bar would end this process before its save."""
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if poll.poll(0):  # an error or a hang-up is told even when nothing is asked for
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)

"""Where the time of a step goes, and how much gets done in it."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..basics.dist import World

if TYPE_CHECKING:
    import torch


class Clock:
    """Seconds by section between two laps, tokens and pairs, peak memory.

    On a GPU sections are timed with CUDA events, which are read at the lap only: timing never waits for the device.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter):
        self.device = device
        self.now = now
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []
        self._done: Counter[str] = Counter()
        self._started = now()

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Times a part of the work, e.g. ``with clock("forward"):``."""
        if self.device.type != "cuda":
            before = self.now()
            yield
            self._seconds[section] += self.now() - before
            return
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        yield
        end.record()
        self._events.append((section, start, end))

    def over(self, section: str, items: Iterable[Any]) -> Iterator[Any]:
        """``items``, with the seconds spent waiting for each of them counted under ``section`` (host time)."""
        iterator = iter(items)
        while True:
            before = self.now()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._seconds[section] += self.now() - before
            yield item

    def count(self, **amounts: int) -> None:
        """Adds work done on this rank, e.g. ``tokens=4096, pairs=8``."""
        self._done.update(amounts)

    def lap(self, world: World) -> dict[str, float]:
        """Metrics since the last lap: ``seconds/*`` on this rank, throughput of all ranks, peak memory. A collective.

        ``seconds/lap`` is the whole; ``memory_peak_bytes`` is the largest of the ranks: GPU memory since the last lap, or
        the process's resident memory since it began.
        """
        if self._events:
            import torch

            torch.cuda.synchronize(self.device)
            for section, start, end in self._events:
                self._seconds[section] += start.elapsed_time(end) / 1000
        lap = self.now() - self._started
        done = world.sum(self._done)
        metrics = {
            "seconds/lap": lap,
            **{f"seconds/{name}": value for name, value in sorted(self._seconds.items())},
            **{f"{name}_per_second": total / lap for name, total in sorted(done.items())},
            "memory_peak_bytes": float(max(world.gather(self._memory()))),
        }
        self._seconds.clear()
        self._events.clear()
        self._done.clear()
        self._started = self.now()
        return metrics

    def _memory(self) -> int:
        if self.device.type == "cuda":
            import torch

            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return peak
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

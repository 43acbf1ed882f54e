"""Work for several threads whose results are wanted in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Iterator[Result]:
    """What ``work`` makes of each of ``items``, in their order, ``at_once`` of them under way. ``items`` are taken as they are
    needed. Once something fails nothing new is begun; what is under way is waited for."""
    window: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for item in items:
                window.append(pool.submit(work, item))
                if len(window) >= 4 * at_once:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for waiting in window:
                waiting.cancel()

"""Progress, on rank 0 only: a bar on a terminal, elsewhere a line every few seconds. The only door to tqdm."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

Progress = Callable[..., Any]
"""(iterable, what is being done, total=None) -> the iterable, shown as it goes; ``total``: of one that has no length."""
QUICK_SECONDS = 2.0
"""What is done sooner than this is not shown."""
LINE_SECONDS = 5.0
"""Between two lines where there is no terminal."""


@contextmanager
def saying_when_slow(enabled: bool, text: str, seconds: float = 10.0) -> Iterator[None]:
    """Says ``text`` on stderr once the block has taken ``seconds``, on the rank that is ``enabled`` (rank 0)."""
    timer = threading.Timer(seconds, print, (text,), {"file": sys.stderr, "flush": True})
    if enabled:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def silent(items: Any, what: str, total: int | None = None) -> Any:
    """The Progress that shows nothing: of ranks above 0, and of those who were not given one."""
    return items


def shown(enabled: bool) -> Progress:
    """The Progress of a rank: shows it on stderr when ``enabled`` (rank 0)."""
    return Shown if enabled else silent


class Shown:
    """``items`` with their progress on stderr as they are taken; ``done`` of ``total`` were taken before. ``note`` may be set to
    what else is worth knowing (the loss)."""

    def __init__(self, items: Iterable[Any], what: str, total: int | None = None, done: int = 0):
        self.items, self.what, self.done = items, what, done
        self.total = total if total is not None or not isinstance(items, Sized) else done + len(items)
        self.note = ""

    def __iter__(self) -> Iterator[Any]:
        return self._on_a_terminal() if sys.stderr.isatty() else self._in_lines()

    def _on_a_terminal(self) -> Iterator[Any]:
        from tqdm import tqdm

        form: dict[str, Any] = {"delay": QUICK_SECONDS, "mininterval": 0.2, "dynamic_ncols": True}
        with tqdm(desc=self.what, initial=self.done, total=self.total, file=sys.stderr, **form) as bar:
            for item in self.items:
                yield item
                bar.set_postfix_str(self.note, refresh=False)
                bar.update()

    def _in_lines(self) -> Iterator[Any]:
        """Redrawing would be a mess of control characters in a log file."""
        count, began = self.done, time.monotonic()
        written, due = count, began + QUICK_SECONDS
        for item in self.items:
            yield item
            count += 1
            if (now := time.monotonic()) >= due:
                self._write(count, now - began)
                written, due = count, now + LINE_SECONDS
        # Where lines were written the last one says how it ended.
        if written not in (count, self.done):
            self._write(count, time.monotonic() - began)

    def _write(self, count: int, seconds: float) -> None:
        from tqdm import tqdm

        line = tqdm.format_meter(
            count, self.total or 0, seconds, ncols=0, prefix=self.what, initial=self.done, postfix=self.note or None
        )
        print(line, file=sys.stderr, flush=True)

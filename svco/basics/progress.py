"""Progress bars, on rank 0 only. The only door to tqdm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any


class Progress:
    """Progress bars outside the train loop."""

    @staticmethod
    def over(enabled: bool) -> Callable[[Any, str], Any]:
        """(iterable, what is being done) -> the iterable, with a bar on stderr when ``enabled`` (rank 0)."""
        return _bar if enabled else lambda items, what: items


def _bar(items: Iterable[Any], what: str, **how: Any) -> Any:
    from tqdm import tqdm

    # Beside a terminal a redrawn bar is a mess of control characters: there, a line now and then.
    interval = 0.2 if sys.stderr.isatty() else 10
    return tqdm(items, desc=what, file=sys.stderr, mininterval=interval, delay=1, dynamic_ncols=True, **how)

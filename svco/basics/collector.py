"""Python's search for unreachable objects, which rests while a command starts.

Imports and the modules of a model are a million objects that stay: looking through them again and again is a tenth of a start.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_resting = False


@contextmanager
def resting() -> Iterator[None]:
    """Inside, until :func:`go_on`, no search. In a process that has torch already nothing changes: there is no start to spare."""
    global _resting
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    _resting = True
    try:
        yield
    finally:
        _resting = False
        gc.enable()


def go_on() -> None:
    """Ends the rest: what there is by now stays, and is not looked through any more."""
    global _resting
    if _resting:
        gc.freeze()
        gc.enable()
        _resting = False

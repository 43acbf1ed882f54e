"""A GPU check in a process that may be lost: the time it has holds whatever a part does, and what was found before it is kept.

A kernel's error spoils CUDA for its whole process, and one that hangs cannot be interrupted from inside it. So the parts run in a
process of their own, which writes its page before and after each; when it ends early, another one takes the parts that are left.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path

from .gpu_kept import PAGE, VERDICT

SPARED = 5.0
"""Seconds before the end of the time at which a part is broken off."""
_MOST = 16
"""Processes, at most: each plays one part more."""


def conduct(folder: Path, minutes: float, began: float) -> int:
    """The whole check, which began at ``began`` (``time.time()``); prints its page, written into ``folder`` too where there is a
    GPU. The exit code: 1 when a comparison failed, or nothing could be compared."""
    deadline = began + max(0.0, 60 * minutes - SPARED)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name)
        for _ in range(_MOST):
            child = context.Process(target=_play, args=(folder, kept, deadline))
            child.start()
            child.join(max(0.0, deadline - time.time()))
            if child.is_alive():
                child.kill()
                child.join()
                print("The time is over.", flush=True)
                break
            if child.exitcode in (0, 1):
                break
            print(f"The process ended with {child.exitcode}; another takes what is left.", flush=True)
        if not (kept / PAGE).exists():
            print("Nothing was checked: --minutes is too short, or svco cannot be imported here.")
            return 1
        print((kept / PAGE).read_text())
        return int((kept / VERDICT).read_text())


def _play(folder: Path, kept: Path, deadline: float) -> None:
    from .gpu_report import go_on

    raise SystemExit(go_on(folder, kept, deadline))

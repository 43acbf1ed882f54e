"""Folders that processes and nodes share: names nobody else takes, and whether a folder is one folder for all of them."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from .dist import World

PATIENCE = 5.0
"""Seconds that network storage gets to show a new file elsewhere."""


def beside(path: Path) -> Path:
    """A name in the folder of ``path`` to write to before it is moved there, which no other process takes, on no node."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def hosts_apart(folder: Path, world: World, patience: float = PATIENCE) -> list[str]:
    """Names of the hosts on which ``folder`` is another folder than rank 0's, or none. A collective.

    Rank 0 must be able to write there (OSError).
    """
    if world.size == 1:
        return []
    mark = folder / world.broadcast(f".shared-{os.getpid()}-{time.time_ns()}")
    if world.is_main:
        mark.touch()
    world.barrier()
    deadline = time.monotonic() + patience
    while not (found := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.2)
    seen = world.gather((socket.gethostname(), found))
    if world.is_main:
        mark.unlink()
    return sorted({host for host, found in seen if not found})

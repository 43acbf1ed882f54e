"""Files that processes and nodes share: replaced whole, under names nobody else takes, in folders that are one for all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from .dist import World

if TYPE_CHECKING:
    import numpy as np

PATIENCE = 5.0
"""Seconds that network storage gets to show a new file elsewhere."""


def beside(path: Path) -> Path:
    """A name in the folder of ``path`` to write to before it is moved there, which no other process takes, on no node."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder that takes its place in one move when the block ends, and is gone if the
    block fails: no reader ever sees half of it. A folder takes the place of an empty one only (OSError)."""
    temporary = beside(path)
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Replaces the file ``path``; ``durable``: it is on the disk when this returns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Puts the names in ``folder`` on the disk: a renamed file may otherwise have its old name after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(record: Mapping[str, Any]) -> str:
    """``record`` as JSON, with a digest of itself: what it says is believed only as long as that fits."""
    return json.dumps({**record, "digest": _digest_of(record)}, indent=1, sort_keys=True)


def unsealed(text: str, since: int = 0) -> dict[str, Any]:
    """The record that ``sealed`` wrote; ValueError when it is no longer that.

    ``since``: from this ``version`` of the record on it has a digest; older ones are believed without.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    written = record.pop("digest", None)
    if written is None and record.get("version", since) in range(since):
        return record
    if written != _digest_of(record):
        raise ValueError("it says something else than when it was written")
    return record


def _digest_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's contents, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """The arrays of these names in an ``.npz``; OSError if it cannot be opened, ValueError if it is damaged or lacks one."""
    import numpy as np

    # Opened here: numpy does not close a damaged file that it opened itself. What it raises for one is any of four errors.
    with path.open("rb") as file:
        try:
            with np.load(file) as arrays:
                return [arrays[name] for name in names]
        except (EOFError, KeyError, BadZipFile) as error:
            raise ValueError(str(error)) from None


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

"""Files that processes and nodes share: replaced whole, under names nobody else takes, in folders that are one for all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .disk import disk_error, disk_problem
from .dist import World
from .errors import UserError

PATIENCE = 5.0
"""Seconds that network storage gets to show a new file elsewhere."""
SAMPLES, SAMPLE_BYTES = 8, 4096
"""Places of a file that are read to see whether it is still what it was, and the bytes of each."""


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Removes from ``folder`` what processes of this host that are no more had begun to write there as ``name``, a glob pattern
    (see :func:`beside`). For who alone writes there."""
    for path in folder.glob(f".{name}.*.tmp"):
        owner = re.fullmatch(rf"\..+\.{re.escape(socket.gethostname())}-(\d+)\.tmp", path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def beside(path: Path) -> Path:
    """A name in the folder of ``path`` to write to before it is moved there, which no other process takes, on no node."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


class CannotWrite(UserError, OSError):
    """A file that the disk did not take: which one, why, how much it needs and has, and what to do."""


@contextmanager
def writing(path: Path, need: int = 0) -> Iterator[None]:
    """Around what writes the file or folder ``path`` of ``need`` bytes (0: not known): whatever a full, absent or read-only disk
    makes of it, torch's and safetensors' errors included, becomes CannotWrite. Other errors pass."""
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        number, about = disk_error(error), getattr(error, "filename", None)
        if isinstance(error, OSError) and about is not None:
            number = error.errno if _is_of(Path(os.fsdecode(about)), path) else None  # it may be reading another file
        if number is None:
            raise
        told = CannotWrite(disk_problem(path, number, need))
        told.errno = number
        raise told from None


def _is_of(file: Path, path: Path) -> bool:
    """Whether ``file`` is ``path``, on the way to it, in it, or in a temporary name for it."""
    return file in path.parents or bool({path, beside(path)} & {file, *file.parents})


@contextmanager
def replacing(path: Path, need: int = 0) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder that takes its place in one move when the block ends, and is gone if the
    block fails: no reader ever sees half of it. A folder takes the place of an empty one only (OSError).

    CannotWrite when the disk does not take it; ``need`` as for :func:`writing`."""
    temporary = beside(path)
    try:
        with writing(path, need):
            yield temporary
            if path.is_dir() and temporary.is_dir():
                path.rmdir()
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Replaces the file ``path``; ``durable``: it is on the disk when this returns. CannotWrite when the disk says no."""
    content = text.encode()
    with replacing(path, len(content)) as temporary, temporary.open("wb", buffering=0) as stream:
        _write(stream, content)
        if durable:
            os.fsync(stream.fileno())
    if durable:
        with writing(path):
            sync_folder(path.parent)


def append(path: Path, content: str | bytes) -> None:
    """Adds ``content`` to the end of the file ``path``, with no buffer in between. CannotWrite when the disk says no."""
    content = content.encode() if isinstance(content, str) else content
    with writing(path, len(content)), path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            _write(stream, content)
        except OSError:
            stream.truncate(before)  # no part of a line
            raise


def _write(stream: Any, content: bytes) -> None:
    """Unbuffered: what Python's buffers could not write they try to write again, and fail again, when they are closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def sync_folder(folder: Path) -> None:
    """Puts the names in ``folder`` on the disk: a renamed file may otherwise have its old name after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, kind: str = "sha256") -> str:
    """The SHA-256 of a file's contents, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def file_mark(path: Path) -> list[int | str]:
    """What is cheap to know of a file, as JSON keeps it: [bytes, time of its contents, of its inode, digest of a few places].

    Nothing that writes a file or puts another one in its place can set the inode's time. The number of the inode is left out:
    storage such as gcsfuse deals it anew at every mount.
    """
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, _sampled(stream, status.st_size)]


def sampled_digest(path: Path) -> str:
    """A digest of ``SAMPLES`` places of a file, its first and last bytes among them."""
    with path.open("rb") as stream:
        return _sampled(stream, os.fstat(stream.fileno()).st_size)


def _sampled(stream: BinaryIO, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    last = max(0, size - SAMPLE_BYTES)
    for number in range(SAMPLES):
        stream.seek(last * number // (SAMPLES - 1))
        digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


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

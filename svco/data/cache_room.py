"""Room in the folder of copies of remote shards: which process uses which copy, and which copies go when there are too many.

Many processes share the folder. Each that uses copies keeps a file with their names, locked for as long as it lives
(``flock``, as in :mod:`svco.record.lock`); a copy that a living process has named is neither deleted nor replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..basics.errors import UserError
from ..basics.strict_json import json_text
from ..record.lock import NO_LOCKS

LIMIT = "SVCO_CACHE_GB"
"""Environment variable: how many gigabytes (1e9 bytes) the copies may have together; not set or 0: any number."""
STALE_DAYS = 7.0
"""A user on another host, whose lock cannot be seen on some storage, counts for so long after it was last heard of."""
SIDECARS = (".index.json", ".source.json")
"""What lies beside a copy and goes with it."""


def limit() -> int:
    """Bytes that the copies may have, 0: any number. UserError if the variable is no such number."""
    text = os.environ.get(LIMIT, "").strip() or "0"
    try:
        found = int(float(text) * 1e9)
        if found >= 0:
            return found
    except (ValueError, OverflowError):
        pass
    raise UserError(f"{LIMIT} is {text!r} in the environment; it must be a number of gigabytes, 0 for any.")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within the block no other process is in a block of the same ``path``, a file that is there only meanwhile."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        # The one before may have taken the file away while this one waited for it.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


class Users:
    """Who uses the copies in ``folder``. One a process and folder: :func:`users_of`."""

    def __init__(self, folder: Path):
        self.folder, self.place = folder, folder.parent / "users"
        self._mine: dict[str, int] = {}
        self._file = self.place / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._pid = os.getpid()
        self._descriptor: int | None = None

    def add(self, copies: Mapping[str, int]) -> set[str]:
        """This process uses the copies of these names from now on; those that it did not before. ``copies``: name -> bytes, 0
        where they are not known."""
        new = copies.keys() - self._mine.keys()
        with self._alone():
            self._write({**self._mine, **copies})
        return new

    def drop(self, names: set[str]) -> None:
        """It does not after all."""
        self._write({name: size for name, size in self._mine.items() if name not in names})

    def leave(self) -> None:
        """It uses none any more."""
        if self._pid == os.getpid():  # a forked child has inherited the lock, and is no user of its own
            self._write({})

    def others(self) -> dict[str, tuple[str, int]]:
        """Name -> (who, bytes) of the copies that other living processes use. Files of those that have ended are removed."""
        found: dict[str, tuple[str, int]] = {}
        for file in sorted(self.place.glob("*-*-*")) if self.place.is_dir() else ():
            if file != self._file and (copies := _used(file)) is not None:
                found |= {name: (file.name.rpartition("-")[0], size) for name, size in copies.items()}
        return found

    def make_room(self, most: int) -> None:
        """Deletes copies that nobody uses, those used longest ago first, until all that is here and all that living processes are
        about to fetch have ``most`` bytes. UserError if what is in use has more by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            there = {file.name: file.stat().st_size for file in self.folder.iterdir() if _is_copy(file)}
            wanted = {name: size for name, (_, size) in self.others().items()} | self._mine
            total = sum((wanted | there).values())
            for name in sorted(there.keys() - wanted.keys(), key=lambda name: _last_used(self.folder / name)):
                if total <= most:
                    break
                for file in (name, *(name + ending for ending in SIDECARS)):
                    (self.folder / file).unlink(missing_ok=True)
                total -= there[name]
        if total > most:
            raise UserError(
                f"The remote shards in use have {total / 1e9:.3g} GB, and the copies in {self.folder} may have "
                f"{most / 1e9:.3g} ({LIMIT}). Raise {LIMIT}, use fewer shards, or wait until other runs have ended."
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.place.mkdir(parents=True, exist_ok=True)
        with locked(self.place / ".lock"):
            yield

    def _write(self, copies: dict[str, int]) -> None:
        self._mine = copies
        if copies:
            if self._descriptor is None:
                self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                with contextlib.suppress(OSError):
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = json_text(copies).encode()
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))
        elif self._descriptor is not None:
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(OSError):
                self.place.rmdir()  # of the last user


_USERS: dict[Path, Users] = {}


def users_of(folder: Path) -> Users:
    """This process among the users of ``folder``."""
    folder = folder.resolve()
    if folder not in _USERS:
        _USERS[folder] = Users(folder)
    return _USERS[folder]


@atexit.register
def leave_all() -> None:
    """This process uses no copies any more."""
    for users in _USERS.values():
        users.leave()
    _USERS.clear()


def _used(file: Path) -> dict[str, int] | None:
    """What the user of ``file`` uses; None, and the file gone, when that process has ended."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    here = file.name.startswith(f"{socket.gethostname()}-")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ended = here or time.time() - os.fstat(descriptor).st_mtime > STALE_DAYS * 86400
    except BlockingIOError:
        ended = False
    except OSError:
        ended = here and not Path("/proc", file.name.split("-")[-2]).exists()
    finally:
        os.close(descriptor)
    if ended:
        file.unlink(missing_ok=True)
        return None
    try:
        return {str(name): int(size) for name, size in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _is_copy(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and not file.name.endswith(SIDECARS)


def _last_used(copy: Path) -> float:
    sidecar = copy.with_name(copy.name + SIDECARS[1])
    return (sidecar if sidecar.exists() else copy).stat().st_mtime

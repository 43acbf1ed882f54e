"""One writer a run: an exclusive lock on its folder, held by rank 0 for as long as its process lives.

``flock`` is kept by the kernel, so it ends with the process however that ends, and holds while the process is suspended or the
clock is set. On local disks, NFS (v3 with its lock daemon, v4), GPFS, BeeGFS, CephFS and Lustre mounted with ``flock`` it holds
between hosts. Lustre mounted with ``localflock`` and NFS with ``local_lock`` keep it to one host, and some storage has no locks
at all: there the run's signs of life stand in (:mod:`svco.record.state`), and a run whose mark on the file was replaced by
another one's stops before it writes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import uuid
import warnings
from pathlib import Path
from types import TracebackType

from ..basics.errors import UserError
from ..basics.files import writing

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What storage without locks answers."""


class FolderLock:
    """The lock of run folder ``folder``. Taken with :meth:`take`, let go on leaving ``with``."""

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._descriptor: int | None = None
        self._mark = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}\n"
        # A forked child (a loader's worker) shares the lock and would keep it when this process is killed.
        os.register_at_fork(after_in_child=self.release)

    def take(self) -> bool:
        """Whether it is this process's now; False where another one has it. Where the storage has no locks it is, with a
        warning."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(
                f"{self.path.parent} is on storage without locks ({os.strerror(error.errno)}): two runs of one name are told "
                "apart by their signs of life alone.",
                stacklevel=2,
            )
        self._descriptor = descriptor
        with writing(self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._mark.encode(), 0)
        return True

    def check(self) -> None:
        """UserError if another run has taken the folder meanwhile, or removed it: this one must not write there any more."""
        try:
            mark = self.path.read_text()
        except OSError as error:
            raise UserError(
                f"The run folder {self.path.parent} is gone ({error.strerror}); nothing more is written."
            ) from None
        if mark != self._mark:
            owner = " ".join(mark.split()[:2]) or "nobody"
            raise UserError(
                f"The run folder {self.path.parent} belongs to another run now (host and process: {owner}), which took this one "
                "for dead. This one stops without writing; its last checkpoint is the one it saved before."
            )

    def release(self) -> None:
        """Lets go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

"""What a disk says when it does not do what it is asked: full, over quota, read-only, failing or not ours, in plain words."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

_DO = {
    errno.ENOSPC: "Free some there, or write elsewhere",
    errno.EDQUOT: "Your quota there is used up: free some, or write elsewhere",
    errno.EFBIG: "Files may not become so large there (ulimit -f, or the file system): write elsewhere",
    errno.EROFS: "That disk is mounted for reading only: write elsewhere, or have it mounted for writing",
    errno.EACCES: "Its owner or mode keep you out: change them, or write elsewhere",
    errno.EPERM: "Its owner or mode keep you out: change them, or write elsewhere",
    errno.EIO: "The disk or the way to it fails: see the system's log, or write elsewhere",
    errno.ENXIO: "The disk is gone: see the system's log, or write elsewhere",
    errno.ENODEV: "The disk is gone: see the system's log, or write elsewhere",
    errno.ESTALE: "The server behind it was changed or restarted: mount it anew, or write elsewhere",
    errno.ENOTCONN: "The server behind it is gone: mount it anew, or write elsewhere",
    errno.ENOENT: "The folder is not there, or has been removed: make it, or write elsewhere",
    errno.ENOTDIR: "A part of that path is a file: write elsewhere",
    errno.EISDIR: "It is a folder: name a file",
}
"""Error number -> what to do."""
_OF_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""Those that may as well be a mistake of the program, unless they are about a file that the user asked for."""


def disk_error(error: BaseException) -> int | None:
    """The error number of the disk that ``error`` tells of, also where torch or safetensors tell it in words of theirs; None for
    an error of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _DO and error.errno not in _OF_PATHS else None
    text = str(error)
    if found := re.search(r"\(os error (\d+)\)", text):  # Rust's
        return int(found[1]) if int(found[1]) in _DO else None
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        if os.strerror(number) in text:
            return number
    # torch.save's writer does not say why; what stops it in the middle of a file is nearly always a disk without room.
    return errno.ENOSPC if re.search(r"PytorchStreamWriter failed|inline_container\.cc", text) else None


def disk_problem(path: Path, number: int, need: int = 0) -> str:
    """A paragraph: what could not be written, why, the bytes it needs (0: not known) and those that are free, what to do."""
    parts = [f"{path} cannot be written: {os.strerror(number)}."]
    if number in (errno.ENOSPC, errno.EDQUOT):
        there = next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("/"))
        free = f"{in_words(shutil.disk_usage(there).free)} are free on its disk"
        parts.append(f"It takes {in_words(need)}, and {free}." if need else f"{free[0].upper()}{free[1:]}.")
    return " ".join(
        [*parts, f"{_DO.get(number, 'Write elsewhere')}, then start it again: what was finished before is whole."]
    )


def in_words(count: int) -> str:
    """Bytes for people: ``34.1 MB``."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"

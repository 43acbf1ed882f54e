"""What a tar holds, as people and programs make them: what is read past, what is refused, and why. The one reader of headers, for
fetching, indexing, training and verifying alike.

tarfile reads the headers. By itself it ends without a word at a damaged one and at the first end mark, takes the last of two
members of one name, and allocates, seeks and recurses as far as a header says: so it reads through :class:`_Headers`, and what
lies behind its end is looked at.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BLOCK = 512
_LONGEST_HEADER = 65536
"""Bytes of headers that one member may have: long names, times, extended attributes."""
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
"""How a packed file begins -> (what packed it, what unpacks it)."""
_ODD = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class NoShard(Exception):
    """Why a file is no shard: the rest of a sentence that begins with its name, and a sentence on what to do."""


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    """Its path there, without ``./`` in front."""
    offset: int
    """Byte at which its contents begin."""
    size: int
    """Their bytes."""


def members(tar: Path) -> list[Member]:
    """The files in ``tar``, in its order; only headers are read.

    Directories and what macOS puts beside files (``._x``, ``.DS_Store``, ``__MACOSX``) are read past. NoShard for a file that is
    cut short, goes on behind its end, is packed or no tar at all, and, by their names, for members that are no plain files
    (links, devices, sparse files) or lead out of the tar (absolute, ``..``).
    """
    size = tar.stat().st_size
    with tar.open("rb") as stream:
        _refuse_by_beginning(stream)
        files, end = _walk(stream, size)
        _check_end(stream, end, size)
    return files


def unpacked_name(name: str) -> str | None:
    """``x.tar`` of ``x.tar.gz`` and the like; None for a name that is not that of a packed tar."""
    found = re.fullmatch(r"(.+)\.(?:tar\.(?:gz|bz2|xz|zst|Z)|(?:tgz|tbz2|txz|tzst))", name)
    return f"{found[1]}.tar" if found else None


def _refuse_by_beginning(stream: BinaryIO) -> None:
    start = stream.read(BLOCK)
    stream.seek(0)
    for mark, (what, remedy) in _PACKED.items():
        if start.startswith(mark):
            raise NoShard(
                f"is packed with {what}. Unpack it ({remedy}): pairs are read from any place of a shard, which a packed one "
                "does not let."
            )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise NoShard(
            "is a web page instead of a shard: perhaps one must be logged in, or it is the address of a page about the shard. "
            "Give the address of the download itself, or download it and give its path."
        )
    if start.startswith(b"version https://git-lfs"):
        raise NoShard("is a pointer of git-lfs and not the shard itself. Fetch it: git lfs pull.")


class _Headers:
    """``stream`` as tarfile may read it: a header says how much to read, which a damaged or hostile one must not decide."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell
        self.left = _LONGEST_HEADER

    def read(self, count: int = -1) -> bytes:
        self.left -= count
        if count < 0 or self.left < 0:
            raise tarfile.ReadError(f"the header before byte {self.tell()} is longer than {_LONGEST_HEADER} bytes")
        data = self._stream.read(count)
        # tarfile's own patterns take a time that grows with the square of such a number's length.
        if count > BLOCK and re.search(rb"\d{100}", data):
            raise tarfile.ReadError(f"the header before byte {self.tell()} holds a number of more than 100 digits")
        return data


def _walk(stream: BinaryIO, size: int) -> tuple[list[Member], int]:
    """(the files, the byte behind the last member) of the tar in ``stream``, which has ``size`` bytes."""
    files: list[Member] = []
    end = 0
    headers = _Headers(stream)
    try:
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                file = _file(member)
                if member.size < 0 or archive.offset <= end:
                    raise tarfile.ReadError(f"the header at byte {end} leads backwards")
                if member.isreg() and member.offset_data + member.size > size:
                    raise tarfile.ReadError(
                        f"member {member.name!r} ends at byte {member.offset_data + member.size}, but the file has {size} bytes"
                    )
                end = archive.offset
                headers.left = _LONGEST_HEADER
                archive.members.clear()  # it would keep them all
                files += [file] if file else []
    except NoShard:
        raise
    except Exception as error:  # tarfile lets ValueError, RecursionError and others out where a header is damaged
        raise NoShard(
            f"is cut short or is no tar file: {' '.join(str(error).split()) or type(error).__name__}. Copy it again from its "
            "source."
        ) from None
    return files, end


def _file(member: tarfile.TarInfo) -> Member | None:
    """``member`` as what it is here; None for what is read past."""
    path = PurePosixPath(member.name)
    if path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts:
        return None
    if path.is_absolute() or ".." in path.parts:
        raise NoShard(
            f"holds a member of the name {member.name!r}, which leads out of it. Pack it anew, from the folder of the files, "
            "under their bare names."
        )
    if member.isdir():
        return None
    odd = "a sparse file" if member.issparse() else None if member.isreg() else _ODD.get(member.type, "no plain file")
    if odd:
        raise NoShard(
            f"holds {member.name!r}, which is {odd} and not a file as it is. Pack it anew, files as they are (tar --dereference "
            "--hard-dereference, without --sparse)."
        )
    return Member(re.sub(r"^(\./+)+", "", member.name), member.offset_data, member.size)


def _check_end(stream: BinaryIO, end: int, size: int) -> None:
    """NoShard unless zeros alone follow byte ``end``, and a block of them at least."""
    if size - end < BLOCK or size < 2 * BLOCK:
        raise NoShard(
            f"is cut short or is no tar file: it has {size} bytes and no end-of-archive mark after byte {end}. Copy it again "
            "from its source."
        )
    stream.seek(end)
    place = end
    while chunk := stream.read(1 << 20):
        if rest := chunk.lstrip(b"\0"):
            place += len(chunk) - len(rest)
            raise NoShard(_behind(stream, end, place))
        place += len(chunk)


def _behind(stream: BinaryIO, end: int, place: int) -> str:
    """What to say of data at byte ``place``, behind the last member that can be read, which ends at byte ``end``."""
    stream.seek(place - place % BLOCK)
    try:
        tarfile.TarInfo.frombuf(stream.read(BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        whole = False
    else:
        whole = place > end
    if whole:
        return (
            f"goes on behind its end: byte {end} ends a tar, and at byte {place} another one begins, which no reader would see. "
            "Of tars that were joined, list the parts instead, or join them with tar --concatenate."
        )
    if place < end + BLOCK:
        return f"is cut short or is no tar file: the header at byte {end} is damaged. Copy it again from its source."
    return (
        f"goes on behind its end: byte {end} ends the tar, and at byte {place} something follows that is none. Copy it again "
        "from its source, or take that off."
    )

"""The index of one shard: where each sample's members lie in the tar. Built once, kept beside the tar or in a cache."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from ..basics.errors import UserError
from ..basics.files import file_digest, write_whole
from ..basics.seal import sealed, unsealed
from ..basics.strict_json import json_text
from .pairs import IMAGE_MEMBERS, MEMBERS

INDEX_VERSION = 2
Size = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """One sample."""

    key: str
    """Its key."""
    members: dict[str, tuple[int, int]]
    """Member name -> (byte offset of its data in the tar, bytes); only the members a pair is made of."""
    sizes: tuple[Size, Size]
    """(width, height) of image 0 and 1 from their headers; (0, 0) where there is none to read."""
    sums: dict[str, int]
    """Member name -> CRC-32 of its data: what is read later is what was indexed."""


@dataclass(frozen=True)
class ShardIndex:
    """One shard."""

    path: str
    """The local tar."""
    bytes: int
    """Its size."""
    sha256: str
    """Digest of the whole tar."""
    entries: tuple[Entry, ...]
    """Its samples in the tar's order."""


def load_index(tar: Path, cache: Path) -> ShardIndex:
    """The index of ``tar``: the one beside it or in ``cache`` if it still fits, else a new one, kept for next time.

    UserError if there is no such tar, or it is cut short.
    """
    try:
        status = tar.stat()
    except OSError as error:
        raise UserError(f"The shard {tar} cannot be read: {error.strerror}.") from None
    candidates = index_places(tar, cache)
    for candidate in candidates:
        if index := _read(candidate, tar, status):
            return index
    index = _build(tar, status.st_size)
    record = {
        "version": INDEX_VERSION,
        "mtime_ns": status.st_mtime_ns,
        "bytes": index.bytes,
        "sha256": index.sha256,
        "samples": [[e.key, e.members, e.sizes, e.sums] for e in index.entries],
    }
    for candidate in candidates:
        try:
            _write(candidate, record)
            break
        except OSError:
            continue  # a folder nobody may write to: the cache is next, and without one the index is built each time
    return index


def index_places(tar: Path, cache: Path) -> tuple[Path, Path]:
    """Where the index of ``tar`` may lie: beside it, or in ``cache``."""
    place = hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:24]
    return tar.with_name(f"{tar.name}.index.json"), cache / f"{place}.index.json"


def _read(path: Path, tar: Path, status: os.stat_result) -> ShardIndex | None:
    try:
        record = unsealed(path.read_text(encoding="utf-8"))
        if record["version"] != INDEX_VERSION or record["bytes"] != status.st_size:
            return None
        # A copied or checked-out shard has another time: then its contents decide.
        if record["mtime_ns"] != status.st_mtime_ns and record["sha256"] != file_digest(tar):
            return None
        entries = tuple(
            Entry(key, {name: tuple(place) for name, place in members.items()}, (tuple(first), tuple(second)), sums)
            for key, members, (first, second), sums in record["samples"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ShardIndex(str(tar), record["bytes"], record["sha256"], entries)


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sealed(record, compact=True))


def _build(tar: Path, size: int) -> ShardIndex:
    try:
        files = whole_members(tar)
    except tarfile.TarError as error:
        raise UserError(
            f"The shard {tar} is cut short or is no tar file: {error}. Copy it again from its source."
        ) from None
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    previous = None
    for member in files:
        key, name = _split_name(member.name)
        if key != previous and key in samples:
            raise UserError(
                f"The shard {tar} holds the key {key!r} twice (second time at byte {member.offset}). The members "
                "of a sample must lie together and keys must be unique."
            )
        previous = key
        samples.setdefault(key, {})
        if name in MEMBERS:
            samples[key][name] = (member.offset_data, member.size)
    first, second = IMAGE_MEMBERS
    with tar.open("rb") as stream:
        entries = tuple(
            Entry(
                key,
                members,
                (_image_size(stream, members.get(first)), _image_size(stream, members.get(second))),
                {name: crc32(_data(stream, place)) for name, place in members.items()},
            )
            for key, members in samples.items()
        )
    return ShardIndex(str(tar), size, file_digest(tar), entries)


def whole_members(tar: Path) -> list[tarfile.TarInfo]:
    """The files in ``tar``, of which only headers are read; tarfile.TarError, saying why, if it is cut short or is no tar."""
    size = tar.stat().st_size
    files = []
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            files.append(member)
            if (end := member.offset_data + member.size) > size:
                raise tarfile.ReadError(f"member {member.name} ends at byte {end}, but the file has {size} bytes")
        end = archive.offset
    # A tar ends with zero blocks; without them it was cut exactly between two members, which tarfile lets pass.
    with tar.open("rb") as stream:
        stream.seek(max(0, size - 512))
        if size < 1024 or stream.read(512).strip(b"\0"):
            raise tarfile.ReadError(f"it has {size} bytes and no end-of-archive mark after byte {end}")
    return files


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key goes up to the first dot after the last slash, the rest is the member's name."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension


def _data(stream: BinaryIO, place: tuple[int, int]) -> bytes:
    offset, size = place
    stream.seek(offset)
    return stream.read(size)


def _image_size(stream: BinaryIO, place: tuple[int, int] | None) -> Size:
    from PIL import Image

    if place is None:
        return (0, 0)
    try:
        with Image.open(io.BytesIO(_data(stream, place))) as image:
            return image.size
    except Exception:  # the sample is bad; reading it says so by name
        return (0, 0)


def combined_digest(indices: Iterable[ShardIndex]) -> str:
    parts = [[index.sha256, [[e.key, sorted(e.members.items())] for e in index.entries]] for index in indices]
    return hashlib.sha256(json_text(parts).encode()).hexdigest()

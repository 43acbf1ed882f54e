"""The index of one shard: where each sample's members lie in the tar. Built once, kept beside the tar or in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import BadSample, UserError
from ..basics.files import file_digest, write_whole
from .pairs import IMAGE_MEMBERS, MEMBERS
from .pictures import MAX_BYTES, read_picture

INDEX_VERSION = 2
DECODERS = 16
"""Threads that decode pictures for an index, at most; no more than there are cores."""
Size = tuple[int, int]
Place = tuple[int, int]
"""(byte offset of a member's data in the tar, bytes)."""


@dataclass(frozen=True)
class Entry:
    """One sample."""

    key: str
    """Its key."""
    members: dict[str, Place]
    """Member name -> where it is; only the members a pair is made of."""
    sizes: tuple[Size, Size]
    """(width, height) of image 0 and 1, upright; (0, 0) where there is none that can be read."""
    pixels: tuple[str, str] = ("", "")
    """What image 0 and 1 are known by (``Picture.digest``): equal for equal pixels; empty where none can be read."""


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
        "samples": [[e.key, e.members, e.sizes, e.pixels] for e in index.entries],
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
        record = json.loads(path.read_text())
        if record["version"] != INDEX_VERSION or record["bytes"] != status.st_size:
            return None
        # A copied or checked-out shard has another time: then its contents decide.
        if record["mtime_ns"] != status.st_mtime_ns and record["sha256"] != file_digest(tar):
            return None
        entries = tuple(
            Entry(
                key,
                {name: tuple(place) for name, place in members.items()},
                (tuple(first), tuple(second)),
                tuple(pixels),
            )
            for key, members, (first, second), pixels in record["samples"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ShardIndex(str(tar), record["bytes"], record["sha256"], entries)


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, separators=(",", ":")))


def _build(tar: Path, size: int) -> ShardIndex:
    try:
        files = whole_members(tar)
    except tarfile.TarError as error:
        raise UserError(
            f"The shard {tar} is cut short or is no tar file: {error}. Copy it again from its source."
        ) from None
    samples: dict[str, dict[str, Place]] = {}
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
    return ShardIndex(str(tar), size, file_digest(tar), _entries(tar, samples))


def _entries(tar: Path, samples: dict[str, dict[str, Place]]) -> tuple[Entry, ...]:
    """With sizes and digests of all pictures: each is decoded once, here."""
    sides = [next((m[name] for name in names if name in m), None) for m in samples.values() for names in IMAGE_MEMBERS]
    with tar.open("rb") as stream, ThreadPoolExecutor(min(DECODERS, len(os.sched_getaffinity(0)))) as pool:
        found = list(pool.map(lambda place: _known_by(stream.fileno(), place), sides))
    pairs = zip(found[::2], found[1::2], strict=True)
    return tuple(
        Entry(key, members, (first[0], second[0]), (first[1], second[1]))
        for (key, members), (first, second) in zip(samples.items(), pairs, strict=True)
    )


def _known_by(file: int, place: Place | None) -> tuple[Size, str]:
    """(size, digest) of the picture at ``place``; nothing where none can be read: the sample is bad, and reading it says so."""
    if place is None or place[1] > MAX_BYTES:
        return (0, 0), ""
    try:
        picture = read_picture(os.pread(file, place[1], place[0]), "")
    except BadSample:
        return (0, 0), ""
    return picture.size, picture.digest


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


def combined_digest(indices: Iterable[ShardIndex]) -> str:
    parts = [[index.sha256, [[e.key, sorted(e.members.items())] for e in index.entries]] for index in indices]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

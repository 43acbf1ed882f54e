"""The index of one shard: where each sample's members lie in the tar. Built once, kept beside the tar or in a cache."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..basics.errors import BadSample, UserError
from ..basics.files import file_digest, file_mark, sampled_digest, write_whole
from ..basics.sealed import sealed, unsealed
from ..basics.strict_json import json_text
from .pairs import IMAGE_MEMBERS, MEMBERS
from .pictures import MAX_BYTES, read_picture
from .tar_members import NoShard, members

INDEX_VERSION = 3
DECODERS = 16
"""Threads that decode pictures for an index, at most; no more than there are cores."""
_ROOM = 65536
Size = tuple[int, int]
Place = tuple[int, int]
"""(byte offset of a member's data in the tar, bytes)."""
Pictures = Mapping[str, tuple[tuple[Size, str], tuple[Size, str]]]
"""Key -> (size, digest) of image 0 and 1."""
Say = Callable[[str], None]
"""Is told, in a sentence, what is wrong."""


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
    sampled: str
    """Digest of a few of its places (:func:`~svco.basics.files.sampled_digest`)."""
    entries: tuple[Entry, ...]
    """Its samples in the tar's order."""
    passed: int = 0
    """How many files in it are no part of a pair."""
    first_passed: str = ""
    """The name of the first of these."""


def load_index(tar: Path, cache: Path, say: Say | None = None) -> ShardIndex:
    """The index of ``tar``: the one beside it or in ``cache`` if it still fits, else a new one, kept for next time.

    It fits a tar of the same size and times whose sampled places are the same, and any whose every byte is. One that does not is
    made anew with a warning. ``say``: nothing that was remembered is trusted; every byte is read, and what a kept index has
    otherwise is said to it. UserError if there is no such tar, or it is no shard.
    """
    try:
        mark = file_mark(tar)
        places, kept, faults = index_places(tar, cache), [], []
        for place in places:
            try:
                kept += [found] if (found := _read(place, tar)) else []
            except ValueError as error:
                faults.append(f"The index {place} cannot be read ({error}); it is made anew.")
        if say is None:
            for before, index in kept:
                if before == mark:
                    return index
        digest = file_digest(tar)
        same = next((index for _, index in kept if index.sha256 == digest), None)
        index = build_index(tar, digest) if same is None or say else same
    except OSError as error:
        raise UserError(f"The shard {tar} cannot be read: {error.strerror}.") from None
    except NoShard as error:
        raise UserError(f"The shard {tar} {error}") from None
    if any(other != index for _, other in kept):
        faults.append(f"The shard {tar} has other contents than when it was indexed; its index is made anew.")
    for fault in faults:
        (say or _warn)(fault)
    _keep(index, mark, places)
    return index


def _warn(fault: str) -> None:
    warnings.warn(fault, stacklevel=3)


def index_places(tar: Path, cache: Path) -> tuple[Path, Path]:
    """Where the index of ``tar`` may lie: beside it, or in ``cache``."""
    place = hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:24]
    return tar.with_name(f"{tar.name}.index.json"), cache / f"{place}.index.json"


def keep_index(index: ShardIndex, cache: Path) -> None:
    """Writes ``index`` for the next time its tar is opened."""
    tar = Path(index.path)
    _keep(index, file_mark(tar), index_places(tar, cache))


def _keep(index: ShardIndex, mark: list[int | str], places: Iterable[Path]) -> None:
    record = {
        "version": INDEX_VERSION,
        "mark": mark,
        "sha256": index.sha256,
        "samples": [[e.key, e.members, e.sizes, e.pixels] for e in index.entries],
        "passed": [index.passed, index.first_passed],
    }
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, sealed(record, compact=True))
            return
        except OSError:
            continue  # a folder nobody may write to: the cache is next, and without one the index is built each time


def _read(path: Path, tar: Path) -> tuple[list[int | str], ShardIndex] | None:
    """(the mark of the tar that it was made of, the index) in ``path``, None if there is none or it is of another version;
    ValueError if it is not what was written."""
    try:
        if (
            path.stat().st_size > tar.stat().st_size + _ROOM
        ):  # three headers a sample take more room in a tar than its line here
            raise ValueError("it is larger than its shard")
        record = unsealed(path.read_text(encoding="utf-8"), since=INDEX_VERSION)
    except OSError:
        return None
    if record.get("version") != INDEX_VERSION:
        return None
    entries = tuple(
        Entry(key, {name: tuple(place) for name, place in found.items()}, (tuple(first), tuple(second)), tuple(pixels))
        for key, found, (first, second), pixels in record["samples"]
    )
    mark = record["mark"]
    return mark, ShardIndex(str(tar), mark[0], record["sha256"], mark[-1], entries, *record["passed"])


def build_index(tar: Path, digest: str = "", pictures: Pictures | None = None) -> ShardIndex:
    """The index of ``tar``, whose SHA-256 ``digest`` is; NoShard, saying why, for what is none. ``pictures``: of all its samples,
    from who has just written them."""
    samples: dict[str, dict[str, Place]] = {}
    passed: list[str] = []
    previous = None
    for member in members(tar):
        key, name = _split_name(member.name)
        if name not in MEMBERS or key.endswith("/") or not key:
            passed.append(member.name)
            continue
        if any(character < " " or "\ud800" <= character < "\ue000" for character in key):
            raise NoShard(
                f"holds a sample of the name {key!r}, which is no text in UTF-8. Pack it anew under another one."
            )
        if key != previous and key in samples:
            raise NoShard(
                f"holds the key {key!r} twice (second time at byte {member.offset}). The members of a sample must lie together "
                "and keys must be unique."
            )
        previous = key
        if name in samples.setdefault(key, {}):
            raise NoShard(
                f"holds {member.name!r} twice (second time at byte {member.offset}), and which of the two is meant cannot be "
                "told. Pack it anew, each file once."
            )
        samples[key][name] = (member.offset, member.size)
    entries = _entries(tar, samples, pictures)
    size, digest = tar.stat().st_size, digest or file_digest(tar)
    return ShardIndex(str(tar), size, digest, sampled_digest(tar), entries, len(passed), passed[0] if passed else "")


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key goes up to the first dot after the last slash, the rest, in small letters, is the member's
    name."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension.lower()


def _entries(tar: Path, samples: dict[str, dict[str, Place]], pictures: Pictures | None) -> tuple[Entry, ...]:
    """With sizes and digests of all pictures: where they are not known each is decoded once, here."""
    if pictures is None:
        sides = [
            next((m[name] for name in names if name in m), None) for m in samples.values() for names in IMAGE_MEMBERS
        ]
        with tar.open("rb") as stream, ThreadPoolExecutor(min(DECODERS, len(os.sched_getaffinity(0)))) as pool:
            found = list(pool.map(lambda place: _known_by(stream.fileno(), place), sides))
        pictures = dict(zip(samples, zip(found[::2], found[1::2], strict=True), strict=True))
    return tuple(
        Entry(key, members, (first[0], second[0]), (first[1], second[1]))
        for key, members in samples.items()
        for first, second in [pictures[key]]
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


_STATES: dict[tuple[str, str], tuple[int, ...]] = {}
"""(path, digest) of the shards that this process has read -> what the file was then: device, inode, bytes and times."""


def open_shard(index: ShardIndex) -> BinaryIO:
    """The tar of ``index``; UserError if it is not what was indexed, as far as that is cheap to see: by its size and a few of its
    places at first, and by its whole contents when its inode or times have changed since."""
    path, name = Path(index.path), (index.path, index.sha256)
    try:
        stream = path.open("rb")
        status = os.fstat(stream.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if _STATES.get(name) == state:
            return stream
        same = status.st_size == index.bytes and (
            file_digest(path) == index.sha256 if name in _STATES else sampled_digest(path) == index.sampled
        )
    except OSError as error:
        raise UserError(
            f"The shard {index.path} cannot be read here: {error.strerror}. It was there when the run began; every node must "
            "be able to read all shards, under the same path."
        ) from None
    if same:
        _STATES[name] = state
        return stream
    stream.close()
    raise UserError(
        f"The shard {index.path} was replaced while it was in use, or is another one on this host: it is not what was indexed "
        f"({status.st_size} bytes, and {index.bytes} then). Start again, so that it is indexed anew."
    )


def combined_digest(indices: Iterable[ShardIndex]) -> str:
    parts = [[index.sha256, [[e.key, sorted(e.members.items())] for e in index.entries]] for index in indices]
    return hashlib.sha256(json_text(parts).encode()).hexdigest()

"""WebDataset tar shards: written in order, read by index. The only door to webdataset.

A shard is an ordinary tar that ``wds.WebDataset`` reads. Beside it lies ``{shard}.index.json`` with every sample's key,
member offsets and image sizes, so that any pair is one seek away and the order of pairs can be a pure function.
"""

from __future__ import annotations

import glob
import os
import socket
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from ..basics.errors import BadSample, UserError
from ..basics.files import replacing
from ..basics.shipped import located
from .pairs import IMAGE_MEMBERS, MEMBERS, TEXT_MEMBER, Pair, PairText, decode_text, encode_text
from .remote import Source, is_remote, redacted
from .shard_cache import fetched
from .shard_index import Entry, ShardIndex, combined_digest, load_index

DEFAULT_CACHE = Path("~/.cache/svco")


def write_shards(pairs: Iterable[Pair], directory: str | Path, split: str, pairs_per_shard: int) -> list[Path]:
    """Writes ``{split}-000000.tar`` … with their indices; the same pairs give the same bytes, whenever and by whomever."""
    import webdataset

    folder, pairs = Path(directory), iter(pairs)
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    while chunk := list(islice(pairs, pairs_per_shard)):
        path = folder / f"{split}-{len(written):06d}.tar"
        with replacing(path) as temporary, temporary.open("wb") as stream:
            writer = webdataset.TarWriter(stream, user="svco", group="svco", mtime=0, encoder=False)
            for pair in chunk:
                members = dict(zip(IMAGE_MEMBERS, pair.images)) | {TEXT_MEMBER: encode_text(pair.text)}
                writer.write({"__key__": pair.text.key, **members})
            writer.close()
        load_index(path, folder)
        written.append(path)
    return written


def expand(spec: str | Sequence[str]) -> tuple[str, ...]:
    """The shards that ``spec`` means: a path or URL (http, s3, gs, hf, …), brace pattern, glob, directory, or a list of these.
    What is not found from the working directory is looked for among the shards that come with svco.

    Braces as in WebDataset (``train-{000000..000007}.tar``). Order is as given, sorted within a directory or glob.
    UserError where nothing matches, and for a glob or directory over http(s), which cannot list.
    """
    from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks the error

    if not isinstance(spec, str):
        return tuple(shard for part in spec for shard in expand(part))
    try:
        names = list(braceexpand(spec))
    except UnbalancedBracesError:
        raise UserError(f"The shard pattern {redacted(spec)!r} has an unbalanced brace.") from None
    found: list[str] = []
    for name in names:
        found += Source.at(name).shards() if is_remote(name) else _local(located(os.path.expanduser(name)), spec)
    if not found:
        raise UserError(f"No shards match {spec!r}.")
    return tuple(found)


def _local(name: str, spec: str) -> list[str]:
    if os.path.isdir(name):
        inside = sorted(glob.glob(os.path.join(glob.escape(name), "*.tar")))
        if not inside:
            raise UserError(f"No shards match: the directory {name} holds no *.tar file.")
        return inside
    if os.path.exists(name):
        return [name]
    if matches := sorted(glob.glob(name)):
        return matches
    part = "" if name == spec else f" (part of {redacted(spec)!r})"
    raise UserError(
        f"No shards match {name!r}{part}, looking from {os.getcwd()}. Check data.train, data.validation and "
        "data.heldout, or make shards with 'svco data build'."
    )


@dataclass(frozen=True)
class ShardSet:
    """The pairs of several shards, numbered through in the shards' order. Picklable; safe to share with workers."""

    indices: tuple[ShardIndex, ...]
    """One index a shard, with the local path it is read from."""
    sources: tuple[str, ...]
    """Where each shard comes from: its path, or the URL it was fetched from."""

    @classmethod
    def open(cls, spec: str | Sequence[str], cache_dir: str | Path | None = None) -> ShardSet:
        """Reads or builds the indices of all shards; remote ones are fetched whole into ``cache_dir`` first, and again
        when their source has changed (:mod:`svco.data.shard_cache`)."""
        cache = Path(cache_dir or DEFAULT_CACHE).expanduser()
        sources = expand(spec)
        urls = [name for name in sources if is_remote(name)]
        copies = dict(zip(urls, fetched(urls, cache / "shards"), strict=True))
        indices = [_index(name, copies.get(name, Path(name)), cache) for name in sources]
        owner: dict[str, str] = {}
        for index in indices:
            for entry in index.entries:
                if entry.key in owner:
                    raise UserError(
                        f"Two samples have the key {entry.key!r}: one in {owner[entry.key]}, one in {index.path}. Keys "
                        "must be unique in a split; is a shard listed twice?"
                    )
                owner[entry.key] = index.path
        if not owner:
            raise UserError(f"The shards {', '.join(map(redacted, sources))} hold no samples at all.")
        return cls(tuple(indices), sources)

    def fetch(self, cache_dir: str | Path | None = None) -> None:
        """Fetches remote shards that this machine does not have yet: an index may have been made on another node.

        UserError if what is here then is not what was indexed.
        """
        cache = Path(cache_dir or DEFAULT_CACHE).expanduser()

        def lacking() -> dict[str, Path]:
            paths = {}
            for source, index in zip(self.sources, self.indices, strict=True):
                path = Path(index.path)
                if is_remote(source) and not (path.exists() and _index(source, path, cache).sha256 == index.sha256):
                    paths[source] = path
            return paths

        if not (missing := lacking()):
            return
        fetched(list(missing), next(iter(missing.values())).parent)
        if still := lacking():
            source, path = next(iter(still.items()))
            raise UserError(
                f"{socket.gethostname()} has another {redacted(source)} than rank 0: it changed at this moment, or cannot be "
                f"fetched from here. Delete {path} on every node and start again."
            )

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """Samples in each shard."""
        return tuple(len(index.entries) for index in self.indices)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.shard_sizes))

    @cached_property
    def digest(self) -> str:
        """Hex digest of all keys, offsets and tar contents; where the files lie does not matter."""
        return combined_digest(self.indices)

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, i: int) -> tuple[ShardIndex, Entry]:
        if not 0 <= i < len(self):
            raise IndexError(f"pair {i} of {len(self)}")
        shard = bisect_right(self._ends, i)
        index = self.indices[shard]
        return index, index.entries[i - self._ends[shard] + len(index.entries)]

    def key(self, i: int) -> str:
        return self._locate(i)[1].key

    def image_sizes(self, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """((width, height), (width, height)) from the image headers; (0, 0) for an image that has none."""
        return self._locate(i)[1].sizes

    def read(self, i: int) -> Pair:
        """Pair ``i``; BadSample if a member is missing or the text is not as it should be."""
        index, entry = self._locate(i)
        with _open(index) as tar:
            text = self._text(index, entry, tar)
            first, second = (self._member(index, entry, name, tar) for name in IMAGE_MEMBERS)
        return Pair(text, (first, second))

    def read_text(self, i: int) -> PairText:
        """The text of pair ``i`` alone; BadSample as in ``read``."""
        index, entry = self._locate(i)
        with _open(index) as tar:
            return self._text(index, entry, tar)

    def _text(self, index: ShardIndex, entry: Entry, tar: BinaryIO) -> PairText:
        return decode_text(entry.key, self._member(index, entry, TEXT_MEMBER, tar), index.path)

    @staticmethod
    def _member(index: ShardIndex, entry: Entry, name: str, tar: BinaryIO) -> bytes:
        if name not in entry.members:
            raise BadSample(
                "missing-member",
                f"{index.path}: sample {entry.key!r} has no member {name} (it has "
                f"{', '.join(sorted(entry.members)) or 'none'}; a pair needs {', '.join(MEMBERS)})",
            )
        offset, size = entry.members[name]
        tar.seek(offset)
        data = tar.read(size)
        if crc32(data) != entry.sums[name]:
            raise UserError(
                f"The shard {index.path} is no longer what was indexed: {name} of sample {entry.key!r} has other bytes. It was "
                "replaced, or its disk loses data: put a good copy there, under a new time of change (touch), and start again."
            )
        return data


def _index(name: str, path: Path, cache: Path) -> ShardIndex:
    try:
        return load_index(path, cache / "indices")
    except UserError as error:
        if not is_remote(name):
            raise
        raise UserError(f"{error} This is the copy of {redacted(name)}: delete it, and it is fetched again.") from None


def _open(index: ShardIndex) -> BinaryIO:
    try:
        size = os.stat(index.path).st_size
        if size == index.bytes:
            return Path(index.path).open("rb")
    except OSError as error:
        raise UserError(
            f"The shard {index.path} cannot be read here: {error.strerror}. It was there when the run began; every node must "
            "be able to read all shards, under the same path."
        ) from None
    raise UserError(
        f"The shard {index.path} was replaced while it was in use: it has {size} bytes and had {index.bytes}. Start again, so "
        "that it is indexed anew."
    )

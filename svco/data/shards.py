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

from ..basics.errors import BadSample, UserError
from ..basics.files import replacing
from ..basics.progress import Progress, silent
from ..basics.secrets import redacted
from ..basics.shipped import located
from .pairs import IMAGE_MEMBERS, LARGEST_TEXT, TEXT_MEMBER, Pair, PairText, decode_text, encode_text
from .pictures import MAX_BYTES, extension
from .remote import Source, is_remote
from .shard_cache import fetched, hold
from .shard_index import (
    Entry,
    Pictures,
    Say,
    ShardIndex,
    build_index,
    combined_digest,
    keep_index,
    load_index,
    open_shard,
)
from .splits import of_split
from .tar_members import unpacked_name

DEFAULT_CACHE = Path("~/.cache/svco")


def write_shards(pairs: Iterable[Pair], directory: str | Path, split: str, pairs_per_shard: int) -> list[Path]:
    """Writes ``{split}-000000.tar`` … with their indices; the same pairs give the same bytes, whenever and by whomever."""
    folder, pairs = Path(directory), iter(pairs)
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    while chunk := list(islice(pairs, pairs_per_shard)):
        written.append(folder / f"{split}-{len(written):06d}.tar")
        write_shard(chunk, written[-1])
    return written


def write_shard(pairs: Iterable[Pair], path: Path, pictures: Pictures | None = None) -> None:
    """Writes ``pairs`` into the tar ``path``, whole or not at all, and its index beside it. ``pictures``: sizes and digests of
    all, where they are known, by key; else each is decoded for the index."""
    import webdataset

    with replacing(path) as temporary, temporary.open("wb") as stream:
        writer = webdataset.TarWriter(stream, user="svco", group="svco", mtime=0, encoder=False)
        for pair in pairs:
            images = {f"{side}.{extension(data)}": data for side, data in enumerate(pair.images)}
            writer.write({"__key__": pair.text.key, **images, TEXT_MEMBER: encode_text(pair.text)})
        writer.close()
    if pictures is None:
        load_index(path, path.parent)
    else:
        keep_index(build_index(path, pictures=pictures), path.parent)


def expand(spec: str | Sequence[str], split: str = "") -> tuple[str, ...]:
    """The shards that ``spec`` means: a path or URL (http, s3, gs, hf, …), brace pattern, glob, directory, or a list of these.
    What is not found from the working directory is looked for among the shards that come with svco.

    Braces as in WebDataset (``train-{000000..000007}.tar``). Order is as given, sorted within a directory or glob.
    ``split``: of a directory that holds splits, that one (:func:`svco.data.splits.of_split`). UserError where nothing matches,
    and for a glob or directory over http(s), which cannot list.
    """
    return tuple(shard for shard, _ in _expanded(spec, split))


def _expanded(spec: str | Sequence[str], split: str) -> list[tuple[str, str]]:
    """(shard, what is to be said of the folder it lies in) of all that ``spec`` means."""
    from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks the error

    if not isinstance(spec, str):
        return [found for part in spec for found in _expanded(part, split)]
    try:
        names = list(braceexpand(spec))
    except UnbalancedBracesError:
        raise UserError(f"The shard pattern {redacted(spec)!r} has an unbalanced brace.") from None
    found: list[tuple[str, str]] = []
    for name in names:
        remote, note = is_remote(name), ""
        given = Source.at(name).shards() if remote else _local(place := located(name), spec)
        is_folder = given != [name] and not glob.has_magic(name) if remote else os.path.isdir(place)
        if split and is_folder:
            given, note = of_split(given, split, redacted(name))
        found += [(shard, note) for shard in given]
    if not found:
        raise UserError(f"No shards match {spec!r}.")
    return found


def _local(name: str, spec: str) -> list[str]:
    if os.path.isdir(name):
        inside = sorted(glob.glob(os.path.join(glob.escape(name), "*.tar")))
        packed = [
            found
            for found in sorted(os.listdir(name))
            if (bare := unpacked_name(found)) and not (Path(name) / bare).exists()
        ]
        if packed:
            raise UserError(
                f"The directory {name} holds the packed shard {packed[0]}. Unpack it, since pairs are read from any place of a "
                "shard, or take it away."
            )
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
    folders: str = ""
    """What was read of folders, in words; empty: none was given."""

    @classmethod
    def open(
        cls,
        spec: str | Sequence[str],
        cache_dir: str | Path | None = None,
        say: Say | None = None,
        split: str = "",
        progress: Progress = silent,
    ) -> ShardSet:
        """Reads or builds the indices of all shards; remote ones are fetched whole into ``cache_dir`` first, and again
        when their source has changed (:mod:`svco.data.shard_cache`). ``say``: every byte is read, and it is told what does not
        agree with what was remembered (:func:`~svco.data.shard_index.load_index`). ``split`` as in ``expand``."""
        cache = Path(cache_dir or DEFAULT_CACHE).expanduser()
        sources, notes = zip(*_expanded(spec, split), strict=True)
        urls = [name for name in sources if is_remote(name)]
        copies = dict(zip(urls, fetched(urls, cache / "shards"), strict=True))
        indices = [
            _index(name, copies.get(name, Path(name)), cache, say) for name in progress(sources, "indexing shards")
        ]
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
            strangers = [f", but other files, such as {index.first_passed!r}" for index in indices if index.passed]
            raise UserError(
                f"The shards {', '.join(map(redacted, sources))} hold no samples at all{''.join(strangers[:1])}. A sample is "
                "KEY.0.jpg, KEY.1.jpg and KEY.pair.json (data_shards/README.md)."
            )
        return cls(tuple(indices), sources, "; ".join(dict.fromkeys(filter(None, notes))))

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

        hold(Path(index.path) for source, index in zip(self.sources, self.indices, strict=True) if is_remote(source))
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

    @cached_property
    def passed(self) -> str:
        """What the shards hold beside pairs, in words; empty: nothing."""
        count = sum(index.passed for index in self.indices)
        first = next((index.first_passed for index in self.indices if index.passed), "")
        return f"{count:,} files that are no part of a pair, such as {first!r}" if count else ""

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
        """((width, height), (width, height)) of the images, upright; (0, 0) for one that cannot be read."""
        return self._locate(i)[1].sizes

    def pixels(self, i: int) -> tuple[str, str]:
        """What the images of pair ``i`` are known by (``Picture.digest``); empty for one that cannot be read."""
        return self._locate(i)[1].pixels

    def read(self, i: int) -> Pair:
        """Pair ``i``; BadSample if a member is missing or the text is not as it should be."""
        index, entry = self._locate(i)
        with open_shard(index) as tar:
            text = self._text(index, entry, tar)
            first, second = (self._member(index, entry, names, tar) for names in IMAGE_MEMBERS)
        return Pair(text, (first, second))

    def read_text(self, i: int) -> PairText:
        """The text of pair ``i`` alone; BadSample as in ``read``."""
        index, entry = self._locate(i)
        with open_shard(index) as tar:
            return self._text(index, entry, tar)

    def _text(self, index: ShardIndex, entry: Entry, tar: BinaryIO) -> PairText:
        return decode_text(entry.key, self._member(index, entry, (TEXT_MEMBER,), tar), index.path)

    @staticmethod
    def _member(index: ShardIndex, entry: Entry, names: Sequence[str], tar: BinaryIO) -> bytes:
        """The one of ``names`` that the sample has."""
        spot = f"{index.path}: sample {entry.key!r}"
        found = [name for name in names if name in entry.members]
        if not found:
            raise BadSample(
                "missing-member",
                f"{spot} has no member {' or '.join(names)} (it has {', '.join(sorted(entry.members)) or 'none'}; a pair needs "
                f"{', '.join(' or '.join(side) for side in IMAGE_MEMBERS)}, {TEXT_MEMBER})",
            )
        if len(found) > 1:
            raise BadSample("bad-schema", f"{spot} has both {' and '.join(found)}; which of them is meant is not said")
        offset, size = entry.members[found[0]]
        if size > (most := LARGEST_TEXT if found[0] == TEXT_MEMBER else MAX_BYTES):
            raise BadSample(
                "bad-json" if found[0] == TEXT_MEMBER else "odd-image",
                f"{spot}: {found[0]} has {size:,} bytes; at most {most:,} are read",
            )
        tar.seek(offset)
        return tar.read(size)


def _index(name: str, path: Path, cache: Path, say: Say | None = None) -> ShardIndex:
    try:
        return load_index(path, cache / "indices", say)
    except UserError as error:
        if not is_remote(name):
            raise
        raise UserError(
            f"{error} This is the copy of {redacted(name)}: delete {path}, and it is fetched again."
        ) from None

"""Splits: whose the shards of a folder are, and that what is held back is not what is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ..basics.errors import UserError
from .pictures import BLANK
from .shard_index import ShardIndex

NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "validation", "valid", "dev"),
    "heldout": ("heldout", "held-out", "test"),
}
"""Key of a recipe's section ``data`` -> what its shards are called in a folder that holds splits; ``svco data build`` writes the
first of each."""


def split_of(shard: str) -> str:
    """The split that a shard's name tells: ``train`` of ``train-000000.tar``."""
    return re.sub(r"-\d+$", "", Path(shard.split("?")[0]).name.removesuffix(".tar"))


def by_split(shards: Iterable[str]) -> dict[str, list[str]]:
    """Split -> its shards, in the order in which they come."""
    found: dict[str, list[str]] = {}
    for shard in shards:
        found.setdefault(split_of(shard), []).append(shard)
    return found


def of_split(shards: Sequence[str], split: str, folder: str) -> tuple[list[str], str]:
    """(those of a folder's ``shards`` that ``split``, a key of ``NAMES``, means; which those are, in words).

    A folder holds splits where its shards have several names and one of them is a split's: then its own are meant. Else it is
    taken whole. UserError for a folder of other splits.
    """
    names = sorted({split_of(shard) for shard in shards})
    known = {name for every in NAMES.values() for name in every}
    if len(names) < 2 or known.isdisjoint(names):
        return list(
            shards
        ), f"{folder} is no folder of splits: all of its {len(shards)} shards ({', '.join(names)}) are read"
    chosen = [shard for shard in shards if split_of(shard) in NAMES[split]]
    if not chosen:
        raise UserError(
            f"The folder {folder} holds the splits {', '.join(names)} and none that is called {' or '.join(NAMES[split])}. Name "
            f"the shards that are meant, e.g. '{folder.rstrip('/')}/{names[0]}-*.tar'."
        )
    others = [name for name in names if name not in NAMES[split]]
    return (
        chosen,
        f"{folder} holds splits: of it {len(chosen)} shards of {split_of(chosen[0])} are read, not {', '.join(others)}",
    )


def check_apart(
    splits: Mapping[str, Sequence[ShardIndex]], allow: str = "none", option: str = "data.allow_overlap="
) -> None:
    """UserError that names keys or pictures (by their pixels) that two of ``splits`` share, by the indices of their shards.

    ``allow`` (``data.allow_overlap``): ``keys`` may be shared, or ``all``. Pictures of one colour may always. ``option``: how one
    says that.
    """
    if allow == "all":
        return
    for (one, first), (other, second) in combinations(splits.items(), 2):
        if allow != "keys" and (keys := _keys(first) & _keys(second)):
            raise UserError(
                f"{one} and {other} share {len(keys):,} keys, such as {min(keys)!r}: the same samples, or shards that were "
                "numbered alike. What is held back must not be trained on; give other shards. Where the pairs are known to be "
                f"others, or this is deliberate, say so: {option}keys (pictures are still compared) or {option}all."
            )
        here, there = _pictures(first), _pictures(second)
        if shared := [digest for digest in here if digest in there]:
            digest = shared[0]
            raise UserError(
                f"{one} and {other} share {len(shared):,} pictures: {_said(here[digest])} is {_said(there[digest])}, say. What "
                "is held back must not be trained on; 'svco data build' never puts one picture into two splits. If this is "
                f"deliberate, say so: {option}all."
            )


def _keys(indices: Sequence[ShardIndex]) -> set[str]:
    return {entry.key for index in indices for entry in index.entries}


def _pictures(indices: Sequence[ShardIndex]) -> dict[str, tuple[str, str, int]]:
    """Digest -> (shard, key, side) of a picture that has more than one colour."""
    return {digest: place for digest, place in _all_pictures(indices) if digest and not digest.startswith(BLANK)}


def _all_pictures(indices: Sequence[ShardIndex]) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for index in indices:
        for entry in index.entries:
            yield from ((digest, (index.path, entry.key, side)) for side, digest in enumerate(entry.pixels))


def _said(place: tuple[str, str, int]) -> str:
    shard, key, side = place
    return f"image {side} of {key!r} in {shard}"

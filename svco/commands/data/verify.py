"""Reads every byte of shards and says what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.errors import BadSample
from ...basics.progress import Progress
from ...batches.encode import admitted
from ...data.alike import near
from ...data.contrast import decode_pair
from ...data.looks import UNKNOWN, Look, look_of
from ...data.near_bits import NEAR
from ...data.pairs import Pair, content_of
from ...data.pictures import BLANK
from ...data.shard_index import ShardIndex
from ...data.shards import ShardSet, expand
from ...data.splits import by_split
from ...families import Family
from .manifest import compare

LEAST_SIDE = 8
"""Pixels of the shorter side that a picture should have."""
LONGEST = 20
"""Times that one side may be the other: beyond, what a model is shown of it is a smear (svco refuses 200 outright)."""
_SHOWN = 20
"""Near-duplicates that are named; of further ones only how many there are."""


@dataclass
class Findings:
    """What a verification counted and found."""

    pairs: Counter[str] = field(default_factory=Counter)
    """Split -> pairs."""
    types: Counter[str] = field(default_factory=Counter)
    """Contrast type -> pairs."""
    problems: list[str] = field(default_factory=list)
    """One line each; empty: all is well."""
    passed: list[str] = field(default_factory=list)
    """What was read past, in words."""
    shards: int = 0
    """How many were read."""
    compared: int = 0
    """How many of them a MANIFEST.json tells of."""


def verify(
    specs: list[str],
    cache: Path | None,
    progress: Progress,
    family: Family | None = None,
    equal_pictures: bool = False,
    near_duplicates: int | None = NEAR,
) -> Findings:
    """Digests (where a MANIFEST.json or an index tells them), schema, decoding, repeated pairs, absurd sizes, and pictures in two
    splits: by pixels, and unless ``near_duplicates`` is None by what looks alike within so many bits, mirrored or not. With
    ``family`` all that a run with its base refuses as well, by the function with which the run does
    (:func:`svco.batches.encode.admitted`). Every byte is read: nothing that an index remembers is taken for true.

    Shards are taken to be of one split when their names agree up to the number (``train-000000.tar``). UserError for
    what stops the reading altogether: no such shard, one cut short, a key twice.
    """
    found, seen = Findings(), _Seen()
    splits = by_split(expand(specs))
    indices: list[ShardIndex] = []
    sources: list[str] = []
    for split, names in splits.items():
        shards = ShardSet.open(names, cache, say=lambda fault: found.problems.append(f"stale index: {fault}"))
        indices += shards.indices
        sources += shards.sources
        found.passed += [shards.passed] if shards.passed else []
        for number in progress(range(len(shards)), f"verifying {split}"):
            found.pairs[split] += 1
            try:
                pair = shards.read(number)
                pictures = admitted(pair, family, equal_pictures)[0] if family else decode_pair(pair, equal_pictures)
            except BadSample as error:
                found.problems.append(f"{error.reason}: {split}: {error}")
                continue
            found.types[pair.text.contrast] += 1
            # The digests are of this reading: the index was made anew.
            found.problems += seen.pair(split, pair, shards.pixels(number))
            found.problems += filter(
                None, (odd_size(f"image {s} of {split}/{pair.text.key}", p.size) for s, p in enumerate(pictures))
            )
            if near_duplicates is not None and len(splits) > 1:
                seen.look(split, pair.text.key, pictures, shards.pixels(number))
    if near_duplicates is not None:
        found.problems += seen.leaks(near_duplicates)
    compared = compare(indices, specs, sources)
    found.shards, found.compared = len(indices), compared.shards
    found.problems += compared.problems
    return found


class _Seen:
    """What was met before: pairs, pictures by their pixels, and what they look like."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, str] = {}
        self._images: dict[str, tuple[str, str]] = {}
        self._places: list[tuple[str, str, str]] = []
        self._looks: list[Look] = []

    def pair(self, split: str, pair: Pair, pixels: tuple[str, str]) -> Iterator[str]:
        """What is the matter with a pair in the light of those before."""
        name = f"{split}/{pair.text.key}"
        content = content_of(pixels, pair.text.query, pair.text.responses, pair.text.system)
        other = self._pairs.setdefault(content, name)
        if other != name:
            yield f"repeated pair: {name} is {other} again"
        for digest in (d for d in pixels if not d.startswith(BLANK)):
            home, first = self._images.setdefault(digest, (split, name))
            if home != split:
                yield f"leak: a picture of {name} is also one of {first}"

    def look(self, split: str, key: str, pictures: tuple[Any, Any], pixels: tuple[str, str]) -> None:
        for side, (picture, digest) in enumerate(zip(pictures, pixels, strict=True)):
            if not digest.startswith(BLANK) and (look := look_of(picture)) != UNKNOWN:
                self._looks.append(look)
                self._places.append((split, f"image {side} of {split}/{key}", digest))

    def leaks(self, within: int) -> Iterator[str]:
        """Pictures of two splits that look alike and are not one, each once."""
        looks = np.array(self._looks, np.uint64).reshape(-1, 4)
        homes = np.unique([split for split, _, _ in self._places], return_inverse=True)[1]
        met: set[tuple[int, int]] = set()
        for piece in near(looks, within):
            across = np.sort(piece[homes[piece[:, 0]] != homes[piece[:, 1]]], 1)
            for one, other in across.tolist():
                (_, first, before), (_, name, digest) = self._places[one], self._places[other]
                if digest == before or (one, other) in met:
                    continue
                met.add((one, other))
                if len(met) <= _SHOWN:
                    yield f"near-duplicate: {name} looks like {first} ({_apart(looks[one], looks[other])})"
        if len(met) > _SHOWN:
            yield f"near-duplicate: {len(met)} such pictures of two splits in all"


def _apart(one: np.ndarray, other: np.ndarray) -> str:
    """By how many bits two looks differ, and whether one is mirrored for that."""
    ways = {
        how: np.bitwise_count(one[:2] ^ other[part]) for how, part in (("", slice(0, 2)), (", mirrored", slice(2, 4)))
    }
    how = min(ways, key=lambda how: int(ways[how].sum()))
    return f"{ways[how][0]} and {ways[how][1]} bits apart{how}"


def odd_size(name: str, size: tuple[int, int]) -> str:
    """What is the matter with a picture of this (width, height); empty: nothing."""
    width, height = size
    shape = f"odd size: {name} has {width} × {height} pixels; "
    if min(size) < LEAST_SIDE:
        return f"{shape}a side should have {LEAST_SIDE}"
    if max(size) > LONGEST * min(size):
        return f"{shape}a side should be no more than {LONGEST} times the other"
    return ""

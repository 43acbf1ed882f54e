"""Token counts of every pair before any image is decoded: they balance the ranks and fill the token budget."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import BadSample
from ..basics.progress import Progress, silent
from ..basics.sealed import read_arrays, write_arrays
from ..data.contrast import decode_pair, same_images
from ..data.pairs import PairSource
from ..families import EncodedText, Family
from .encode import FILLER_TOKEN


@dataclass(frozen=True)
class Lengths:
    """Token counts of all N pairs of a shard set, known before decoding. A bad pair has those of its filler, and a reason."""

    prefixes: np.ndarray
    """(N, 3) int32: tokens of the prefix of each condition, image placeholders included."""
    responses: np.ndarray
    """(N, 2) int32: scored tokens of each response."""
    cut: np.ndarray
    """(N,) int32: response tokens the budget dropped."""
    reasons: np.ndarray
    """(N,) str: the BadSample reason, or an empty string."""

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Lengths:
        return cls(*read_arrays(path, *(field.name for field in fields(cls))))

    @classmethod
    def dealt(cls, parts: Sequence[Lengths]) -> Lengths:
        """Those of all pairs from those of every n-th, beginning with the first, the second …, of n ``parts``."""
        count, whole = sum(len(part.cut) for part in parts), []
        for arrays in zip(*(vars(part).values() for part in parts), strict=True):
            whole.append(np.empty((count, *arrays[0].shape[1:]), arrays[0].dtype))
            for first, array in enumerate(arrays):
                whole[-1][first :: len(parts)] = array
        return cls(*whole)

    @property
    def bad(self) -> list[int]:
        """Indices of the bad pairs."""
        return np.flatnonzero(self.reasons != "").tolist()

    def summary(self) -> dict[str, Any]:
        """Counts a person wants before a run: pairs, pairs cut, bad pairs by reason."""
        reasons = Counter(r for r in self.reasons.tolist() if r)
        return {"pairs": len(self.cut), "cut": int((self.cut > 0).sum()), "bad": dict(reasons)}


def measured(shards: PairSource, family: Family, index: int, equal_pictures: bool = False) -> EncodedText:
    """The token ids of pair ``index``, all of them checked; BadSample for what :func:`~svco.batches.encode.admitted` refuses.
    Only pictures that could not be read when their shard was indexed are decoded, to say what is the matter with them."""
    text, (first, second) = shards.read_text(index), shards.pixels(index)
    if not (first and second):
        decode_pair(shards.read(index), equal_pictures)
    elif first == second and not equal_pictures:
        raise same_images(text.key)
    return family.encode_text(text, shards.image_sizes(index))


def measure_lengths(
    shards: Any,
    family: Family,
    cache_dir: Path,
    world: World,
    progress: Progress = silent,
    equal_pictures: bool = False,
) -> Lengths:
    """Lengths of every pair of ``shards``, from rank 0's ``cache_dir`` if the same shards and template were measured before. A
    collective."""
    name = hashlib.sha256(f"4 {shards.digest} {family.fingerprint} {equal_pictures}".encode()).hexdigest()[:24]
    path = cache_dir / "lengths" / f"{name}.npz"
    if (known := world.on_main(lambda: _known(path, len(shards)))) is not None:
        return known
    lengths = measure(shards, family, world, progress, equal_pictures)
    world.on_main(lambda: lengths.save(path))
    return lengths


def measure(
    shards: PairSource,
    family: Family,
    world: World,
    progress: Progress = silent,
    equal_pictures: bool = False,
    whose: str = "",
) -> Lengths:
    """Lengths of every pair of ``shards``, a share measured by each rank; ``whose`` stands before what is told meanwhile. A
    collective."""
    said = f"{whose}measuring lengths" + (f", a share of {world.size}" if world.size > 1 else "")
    share, told = range(world.rank, len(shards), world.size), partial(progress, what=said)
    return Lengths.dealt(world.gather(world.on_each(lambda: _share(shards, family, share, told, equal_pictures))))


def _known(path: Path, count: int) -> Lengths | None:
    try:
        known = Lengths.load(path)
    except (OSError, ValueError):  # a damaged sidecar is measured again
        return None
    return known if len(known.cut) == count else None


def _share(
    shards: PairSource, family: Family, share: range, progress: Callable[[Any], Any], equal_pictures: bool
) -> Lengths:
    """Lengths of the pairs ``share``."""
    count = len(share)
    prefixes, responses = np.zeros((count, 3), np.int32), np.zeros((count, 2), np.int32)
    cut, reasons = np.zeros(count, np.int32), np.full(count, "", dtype="U24")
    filler = family.filler_text(FILLER_TOKEN)
    for place, index in enumerate(progress(share)):
        try:
            encoded = measured(shards, family, index, equal_pictures)
        except BadSample as error:
            reasons[place] = error.reason
            encoded = filler
        prefixes[place] = [len(ids) for ids in encoded.prefixes]
        responses[place] = [len(ids) for ids in encoded.responses]
        cut[place] = encoded.cut
    return Lengths(prefixes, responses, cut, reasons)

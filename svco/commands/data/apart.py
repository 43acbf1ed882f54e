"""Which pairs go to which split: what looks alike stays together, and every split has its share of each source and type."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...data.alike import components, near
from .known import Pictures

SPLITS = ("heldout", "val", "train")
"""Those that are held back first."""


def grouped(sides: np.ndarray, pictures: Pictures, within: int | None) -> np.ndarray:
    """(n,) the component of each pair; pairs that share a picture are in one, directly or through others.

    ``sides``: (n, 2) numbers of ``pictures``. Two are one picture when their pixels are, or when they look alike within this many
    bits, mirrored or not (:func:`svco.data.alike.near`); None: by pixels alone. A picture of one colour joins nothing, and a flat
    one only by its pixels.
    """
    count, blank, same = len(pictures), pictures.blank, pictures.same()

    def joins() -> Iterator[np.ndarray]:
        yield np.stack([np.arange(count), same], 1)
        pairs = count + np.arange(len(sides))
        for side in sides.T:
            seen = ~blank[side]
            yield np.stack([pairs[seen], side[seen]], 1)
        if within is not None:
            # One of each picture that some pair shows, and that has a look.
            shown = np.unique(same[sides])
            shown = shown[~blank[shown] & pictures.looks[shown].any(1)]
            for join in near(pictures.looks[shown], within):
                yield shown[join]

    return components(count + len(sides), joins())[count:]


def divided(
    groups: np.ndarray, strata: np.ndarray, names: Sequence[bytes], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each pair: whole ``groups``, every stratum's share of the splits that are held back as near as those allow.

    ``groups`` and ``strata``: (n,) numbers; ``names``: what a pair is drawn by, with ``seed``. Groups are taken in a drawn
    order and put where no stratum has more than its :func:`quotas`; then those, smallest first, that bring a split nearer to its
    quotas although one stratum gets more. What is left is training's: one group at least.
    """
    wanted = quotas(np.bincount(strata), shares, seed)
    have = {split: np.zeros_like(quota) for split, quota in wanted.items()}
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(number)
    drawn = sorted(members, key=lambda group: draw(seed, min(names[number] for number in members[group]).hex()))
    split_of = ["train"] * len(names)
    training = len(names)

    def place(group: int, exact: bool) -> bool:
        """Whether ``group`` found a split that is held back."""
        counts = Counter(strata[members[group]].tolist())
        which, size = list(counts), np.array(list(counts.values()))
        nonlocal training
        if training <= size.sum():
            return False
        # The one that lacks the largest part of what it is to have; the first of equals.
        for split in sorted(wanted, key=lambda split: -lacking(split)):
            room = wanted[split][which] - have[split][which]
            if (room >= size).all() if exact else (np.abs(room - size).sum() < np.abs(room).sum()):
                have[split][which] += size
                training -= int(size.sum())
                for number in members[group]:
                    split_of[number] = split
                return True
        return False

    def lacking(split: str) -> float:
        return 1 - have[split].sum() / max(1, wanted[split].sum())

    for exact, order in ((True, drawn), (False, sorted(drawn, key=lambda group: len(members[group])))):
        for group in order:
            if split_of[members[group][0]] == "train":
                place(group, exact)
            if all((have[split] >= wanted[split]).all() for split in wanted):
                break
    return split_of


def quotas(counts: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split -> how many pairs of each stratum it is to have; ``counts`` of all.

    Each stratum gives whole pairs of its share; what is missing from the share of all pairs is given, one each, by those strata
    with the largest rest, equal ones drawn. A stratum always leaves one pair to training.
    """
    found: dict[str, np.ndarray] = {}
    left = np.maximum(counts - 1, 0)
    for split, share in shares.items():
        exact = share * counts
        quota = np.minimum(np.floor(exact + 1e-9).astype(np.int64), left)
        missing = round(share * int(counts.sum())) - int(quota.sum())
        order = sorted(
            range(len(counts)), key=lambda s: (-round(float(exact[s] - quota[s]), 9), draw(seed, f"{split} {s}"))
        )
        for stratum in [s for s in order if quota[s] < left[s]][: max(0, missing)]:
            quota[stratum] += 1
        found[split] = quota
        left = left - quota
    return found


def draw(seed: int, name: str) -> str:
    """A drawn text to order by, always the same of ``seed`` and ``name``."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()

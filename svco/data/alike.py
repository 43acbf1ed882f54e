"""Which of many pictures look alike, and what hangs together through that. The only door to scipy.

All pairs of *n* pictures are n²/2. Of hashes that differ in at most *d* of 64 bits one of four bands of 16 differs in at most
d // 4 (pigeonholes), so only those that nearly share a band are compared. Nothing within *d* is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np

from .near_bits import MOST_NEAR

BANDS, WIDTH = 4, 16
_AT_ONCE = 1 << 21
"""Pairs that are compared at a time: what memory this takes does not grow with the pictures."""


def near(looks: np.ndarray, within: int) -> Iterator[np.ndarray]:
    """Pairs of rows of ``looks`` that look alike, each as (k, 2) row numbers, in pieces; a pair may come more than once.

    ``looks``: (n, 4) uint64, a :data:`~svco.data.looks.Look` a row, none ``UNKNOWN``. Two look alike when pHash and dHash both
    differ in at most ``within`` bits, or do so once one of the two is mirrored. ValueError for ``within`` above
    ``MOST_NEAR``.
    """
    if not 0 <= within <= MOST_NEAR:
        raise ValueError(f"within {within} bits; 0 to {MOST_NEAR} can be asked for")
    count = len(looks)
    # Equal ones first, so that a thousand copies are a thousand joins and not a million.
    both = np.concatenate([looks[:, :2], looks[:, 2:]])
    hashes, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
    owner = first % count if count else first
    which = which.reshape(-1)
    everyone = np.stack([np.arange(2 * count) % max(1, count), owner[which]], 1)
    # Two that are alike only when both are mirrored are not: that would be one more way to be so by chance.
    upright = np.zeros(len(hashes), bool)
    upright[which[:count]] = True
    yield everyone[upright[which]]
    met = upright.copy()
    for left, right in _candidates(hashes[:, 0], within // BANDS):
        found = np.bitwise_count(hashes[left, 0] ^ hashes[right, 0]) <= within
        left, right = left[found], right[found]
        found = np.bitwise_count(hashes[left, 1] ^ hashes[right, 1]) <= within
        found &= upright[left] | upright[right]
        if found.any():
            met[left[found]] = met[right[found]] = True
            yield np.stack([owner[left[found]], owner[right[found]]], 1)
    yield everyone[(met & ~upright)[which]]


def _candidates(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of row numbers of ``hashes``, (n,) uint64, that differ in at most ``radius`` bits of one band."""
    masks = [sum(1 << bit for bit in bits) for size in range(radius + 1) for bits in combinations(range(WIDTH), size)]
    for band in range(BANDS):
        values = ((hashes >> np.uint64(WIDTH * band)) & np.uint64((1 << WIDTH) - 1)).astype(np.int64)
        order = np.argsort(values, kind="stable")
        values = values[order]
        starts = np.searchsorted(values, np.arange((1 << WIDTH) + 1))
        for mask in masks:
            other = values ^ mask
            # Each pair once: of one bucket with those behind, of two from the lower one.
            begins = starts[other] if mask else np.arange(1, len(values) + 1)
            lengths = np.where(values <= other, starts[other + 1] - begins, 0)
            yield from _crossed(order, begins, lengths)


def _crossed(order: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each place i: (order[i], each of the ``lengths[i]`` of ``order`` from ``begins[i]`` on), in pieces."""
    places = np.flatnonzero(lengths)
    ends = np.cumsum(lengths[places])
    done = 0
    while done < len(places):
        base = ends[done - 1] if done else 0
        last = max(done + 1, int(np.searchsorted(ends, base + _AT_ONCE, "right")))
        some = places[done:last]
        counts = lengths[some]
        left = np.repeat(some, counts)
        inside = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[left], order[np.repeat(begins[some], counts) + inside]
        done = last


def components(count: int, joins: Iterable[np.ndarray]) -> np.ndarray:
    """(count,) the lowest number of the component that each of ``count`` things is in; ``joins`` are (k, 2) of their numbers."""
    label = np.arange(count)
    waiting: list[np.ndarray] = []
    for join in joins:
        waiting.append(join)
        if sum(map(len, waiting)) > _AT_ONCE:
            label, waiting = _joined(label, waiting), []
    return _joined(label, waiting)


def _joined(label: np.ndarray, joins: list[np.ndarray]) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(label)
    edges = np.concatenate([*joins, np.stack([np.arange(count), label], 1)])
    graph = coo_array((np.ones(len(edges), np.int32), (edges[:, 0], edges[:, 1])), (count, count))
    _, found = connected_components(graph, directed=False)
    _, lowest, which = np.unique(found, return_index=True, return_inverse=True)
    return lowest[which.reshape(-1)]

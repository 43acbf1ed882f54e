"""Where a recurrence forks in a packed row: for layers that carry a state along the tokens, as attention carries keys.

A branch goes on from the state in which its parent segment ends, and its siblings do too. So the segments are taken level by
level, roots first, and each begins with its parent's last state. A short convolution before the recurrence looks back a few
tokens, which may lie in several short ancestors: copies of these tokens are put in front of each segment, once for all layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

Span = tuple[int, int]
"""[start, stop) in the row."""
CHUNK = 64
"""Tokens that the chunked recurrence computes at once; a segment costs whole chunks."""
_MAX_WASTE = 1.2
"""Segments share a padded block while its chunks are at most this times theirs."""


@dataclass(frozen=True)
class Side:
    """n consecutive segments of a level side by side, padded at the end to L tokens."""

    first: int
    """Number of its first segment in the level's order."""
    index: torch.Tensor
    """(n, L) int64: row positions; padding repeats the segment's first token."""
    real: torch.Tensor
    """(n, L) bool: the places that are tokens."""
    kept: torch.Tensor
    """(tokens,) int64: the places of the flattened (n · L) that are tokens."""


@dataclass(frozen=True)
class Level:
    """S segments at one depth of the trees, the longest first."""

    index: torch.Tensor
    """(tokens,) int64: row positions of all segments' tokens, one segment after another."""
    bounds: torch.Tensor
    """(S + 1,) int64: cumulative lengths of the segments."""
    host_bounds: torch.Tensor
    """The same on the CPU, for kernels that plan there."""
    parents: torch.Tensor | None
    """(S,) int64: each segment's parent by its number in the level above; None for roots, which begin with no state."""
    sides: tuple[Side, ...]
    """The same segments in padded blocks of similar length, in order."""
    ends: bool
    """Whether a segment of the level below goes on from here."""


@dataclass(frozen=True)
class Forks:
    """How a row of T tokens forks, for a convolution over ``width`` tokens and a recurrence behind it."""

    tails: torch.Tensor
    """(T + S · (width - 1),) int64: the row with each segment's last ``width`` - 1 ancestors in front of it, the oldest first.
    T, the place behind the row, where a segment has fewer: it stands for zeros."""
    kept: torch.Tensor
    """(T,) int64: where the row's own tokens are in that longer one."""
    levels: tuple[Level, ...]
    """Roots first."""
    order: torch.Tensor
    """(T,) int64: for each row position its place among the tokens of all levels, one level after another."""

    @classmethod
    def of(
        cls, queries: Sequence[Span], keys: Sequence[Sequence[Span]], width: int, device: torch.device | str = "cpu"
    ) -> Forks:
        """From the segments of a :class:`~svco.batches.layout.Layout`, its tensors on ``device``."""
        numbers = {own: s for s, own in enumerate(queries)}
        tokens = sum(stop - start for start, stop in queries)
        tails, kept, here = [], [], 0
        for own, ranges in zip(queries, keys, strict=True):
            tails += [_tail(ranges[:-1], width - 1, tokens), np.arange(*own)]
            here += width - 1
            kept.append(here + np.arange(own[1] - own[0]))
            here += own[1] - own[0]
        depth = [len(ranges) - 1 for ranges in keys]
        levels: list[Level] = []
        places: dict[int, int] = {}
        for d in range(max(depth) + 1):
            members = sorted((s for s, deep in enumerate(depth) if deep == d), key=lambda s: -_length(queries[s]))
            parents = [places[numbers[keys[s][-2]]] for s in members] if d else None
            levels.append(_level([queries[s] for s in members], parents, d < max(depth), device))
            places = {s: place for place, s in enumerate(members)}
        order = torch.argsort(torch.cat([level.index for level in levels]))
        longer, own_places = (torch.from_numpy(np.concatenate(parts)).to(device) for parts in (tails, kept))
        return cls(longer, own_places, tuple(levels), order)


def _length(span: Span) -> int:
    start, stop = span
    return stop - start


def _tail(ancestors: Sequence[Span], count: int, nothing: int) -> np.ndarray:
    """The last ``count`` positions of ``ancestors``, ``nothing`` in front where there are fewer."""
    found = [np.arange(max(start, stop - count), stop) for start, stop in ancestors]
    last = np.concatenate([np.full(count, nothing), *found])
    return last[len(last) - count :]


def _level(spans: list[Span], parents: list[int] | None, ends: bool, device: torch.device | str) -> Level:
    lengths = [_length(span) for span in spans]
    sides, first, chunks = [], 0, 0
    for place, length in enumerate(lengths):
        padded = (place + 1 - first) * _chunks(lengths[first])
        if padded > _MAX_WASTE * (chunks + _chunks(length)):
            sides.append(_side(first, spans[first:place], device))
            first, chunks = place, 0
        chunks += _chunks(length)
    sides.append(_side(first, spans[first:], device))
    bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
    index = np.concatenate([np.arange(*span) for span in spans])
    return Level(
        index=torch.from_numpy(index).to(device),
        bounds=bounds.to(device),
        host_bounds=bounds,
        parents=None if parents is None else torch.tensor(parents, device=device),
        sides=tuple(sides),
        ends=ends,
    )


def _chunks(length: int) -> int:
    return -(-length // CHUNK)


def _side(first: int, spans: list[Span], device: torch.device | str) -> Side:
    longest = _length(spans[0])
    real = np.arange(longest) < np.array([_length(span) for span in spans])[:, None]
    starts = np.array([start for start, _ in spans])[:, None]
    index = np.where(real, starts + np.arange(longest), starts)
    return Side(first, *(torch.from_numpy(part).to(device) for part in (index, real, np.flatnonzero(real))))

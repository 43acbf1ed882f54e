"""Who attends to whom in a packed row, and the trees side by side in padded blocks for dense kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from .forks import Forks, Range

_MAX_WASTE = 1.2
"""Trees share a padded block while its area is at most this times theirs."""
_MAX_BLOCK = 1 << 24
"""Largest area of a padded block, in (query, key) places."""


@dataclass(frozen=True)
class Block:
    """n trees of the row side by side, padded to L tokens: how dense kernels attend."""

    index: torch.Tensor
    """(n, L) int64: position in the row; padding repeats the tree's first token."""
    mask: torch.Tensor
    """(n, 1, L, L) bool: may query i see key j. A padded query sees key 0, so that no row is empty."""
    kept: torch.Tensor
    """(tokens,) int64: the places of the flattened (n · L) that are tokens."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Segments of one kind as a variable-length kernel takes them in one call: their queries, and their keys gathered."""

    cu_q: torch.Tensor
    """(S + 1,) int32: cumulative query lengths."""
    cu_k: torch.Tensor
    """(S + 1,) int32: cumulative key lengths."""
    key_index: torch.Tensor
    """(keys,) int64: row positions of all segments' keys, one segment after another."""
    max_q: int
    """Longest segment."""
    max_k: int
    """Most keys of a segment: the longest path."""
    causal: bool = True
    """A query sees its segment's keys up to its own, the last of both aligned (bottom-right); False: all of them."""
    rows: torch.Tensor | None = None
    """(queries,) int64: their positions in the row; None: they are the whole row."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: function(v) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Layout(Call):
    """Who attends to whom in a row of T tokens. Segment s's queries are its own tokens; its keys are its ancestors' and
    its own, the last of them aligned. It is a call of all segments, and one call does where all are causal."""

    queries: tuple[Range, ...]
    """Segments in row order; together they cover the row."""
    keys: tuple[tuple[Range, ...], ...]
    """For each segment its ancestors' ranges and, last, its own."""
    two_way: tuple[bool, ...]
    """For each segment whether its own tokens see each other in both directions; else causally."""
    calls: tuple[Call, ...] = ()
    """The causal segments and the two-way ones, a call each; empty where all are causal."""
    order: torch.Tensor | None = None
    """(T,) int64: where each row position is in the ``rows`` of all calls, one behind another; None without calls."""

    @classmethod
    def of(cls, segments: Sequence[tuple[Range, tuple[Range, ...]]], two_way: Sequence[bool] = ()) -> Layout:
        """From (own range, ancestors' ranges) of each segment, in row order, and which of them are two-way; empty: none. No
        segment may be empty."""
        queries = tuple(own for own, _ in segments)
        keys = tuple((*ancestors, own) for own, ancestors in segments)
        if not queries or min(map(_length, queries)) < 1:
            raise ValueError("a layout has at least one segment, and every segment has a token")
        whole = cls(
            queries=queries, keys=keys, two_way=tuple(two_way) or (False,) * len(queries), **_gathered(queries, keys)
        )
        if not any(whole.two_way):
            return whole
        calls = []
        for causal in (True, False):
            if members := [s for s, both in enumerate(whole.two_way) if both is not causal]:
                mine, theirs = [queries[s] for s in members], [keys[s] for s in members]
                calls.append(Call(causal=causal, rows=_places(mine), **_gathered(mine, theirs)))
        order = torch.argsort(torch.cat([call.rows for call in calls if call.rows is not None]))
        return replace(whole, calls=tuple(calls), order=order)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Layout:
        return replace(super().map(function), calls=tuple(call.map(function) for call in self.calls))

    def forks(self, width: int) -> Forks:
        """How layers with a state go through the row, for a convolution over ``width`` tokens: made once for all layers, where
        the layout's tensors are."""
        if width not in self._forks:
            self._forks[width] = Forks.of(self.queries, self.keys, width, self.cu_q.device)
        return self._forks[width]

    @cached_property
    def _forks(self) -> dict[int, Forks]:
        return {}

    @cached_property
    def trees(self) -> tuple[tuple[Range, np.ndarray], ...]:
        """(range, (L, L) bool visibility) of each tree: a root segment and all that attend to it."""
        found: list[list[int]] = []
        for s, ranges in enumerate(self.keys):
            if len(ranges) == 1:
                found.append([])
            found[-1].append(s)
        return tuple(self._tree(members) for members in found)

    def _tree(self, members: list[int]) -> tuple[Range, np.ndarray]:
        first, last = self.queries[members[0]][0], self.queries[members[-1]][1]
        visible = np.zeros((last - first, last - first), dtype=bool)
        for s in members:
            start, stop = self.queries[s]
            rows = slice(start - first, stop - first)
            for low, high in self.keys[s][:-1]:
                visible[rows, low - first : high - first] = True
            visible[rows, rows] = True if self.two_way[s] else np.tri(stop - start, dtype=bool)
        return (first, last), visible

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The trees in padded blocks of similar length, and for each row position its place in the blocks' kept tokens; made
        once for all layers, where the layout's tensors are."""
        return self._blocks(self.trees)

    def blocks_within(self, window: int) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The same for layers whose tokens see no key that stands ``window`` tokens or more before them on their path; made
        once a window."""
        if window not in self._narrow:
            depth = self._depth
            near = (
                (span, visible & (depth[slice(*span)] > depth[slice(*span), None] - window))
                for span, visible in self.trees
            )
            self._narrow[window] = self._blocks(near)
        return self._narrow[window]

    @cached_property
    def _narrow(self) -> dict[int, tuple[tuple[Block, ...], torch.Tensor]]:
        return {}

    @cached_property
    def _depth(self) -> np.ndarray:
        """(T,) int64: the tokens before each on its path."""
        before = (sum(map(_length, ranges[:-1])) for ranges in self.keys)
        return np.concatenate([np.arange(_length(own)) + n for own, n in zip(self.queries, before, strict=True)])

    def _blocks(self, trees: Iterable[tuple[Range, np.ndarray]]) -> tuple[tuple[Block, ...], torch.Tensor]:
        longest_first = sorted(trees, key=lambda tree: _length(tree[0]), reverse=True)
        groups: list[list[tuple[Range, np.ndarray]]] = []
        area = longest = 0  # of the last group: its trees' area without padding, and its first tree's length
        for tree in longest_first:
            length = _length(tree[0])
            padded = (len(groups[-1]) + 1) * longest**2 if groups else 0
            if not groups or padded > _MAX_WASTE * (area + length**2) or padded > _MAX_BLOCK:
                groups.append([])
                area, longest = 0, length
            groups[-1].append(tree)
            area += length**2
        blocks = tuple(_block(group, self.cu_q.device) for group in groups)
        order = torch.cat([block.index.flatten()[block.kept] for block in blocks])
        return blocks, torch.argsort(order)


def _gathered(queries: Sequence[Range], keys: Sequence[tuple[Range, ...]]) -> dict[str, Any]:
    """What a call says of its segments."""
    q = np.array([_length(own) for own in queries], dtype=np.int64)
    k = np.array([sum(map(_length, ranges)) for ranges in keys], dtype=np.int64)
    cu_q, cu_k = (torch.from_numpy(np.concatenate([[0], n.cumsum()]).astype(np.int32)) for n in (q, k))
    index = _places([span for ranges in keys for span in ranges])
    return {"cu_q": cu_q, "cu_k": cu_k, "key_index": index, "max_q": int(q.max()), "max_k": int(k.max())}


def _places(ranges: Sequence[Range]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.arange(*span) for span in ranges]))


def _length(span: Range) -> int:
    start, stop = span
    return stop - start


def _block(trees: list[tuple[Range, np.ndarray]], device: torch.device) -> Block:
    longest = max(_length(span) for span, _ in trees)
    index = np.empty((len(trees), longest), dtype=np.int64)
    mask = np.zeros((len(trees), 1, longest, longest), dtype=bool)
    mask[..., 0] = True
    kept = np.zeros((len(trees), longest), dtype=bool)
    for n, ((start, stop), visible) in enumerate(trees):
        length = stop - start
        index[n] = start
        index[n, :length] = np.arange(start, stop)
        mask[n, 0, :length, :length] = visible
        kept[n, :length] = True
    return Block(*(torch.from_numpy(part).to(device) for part in (index, mask, np.flatnonzero(kept))))

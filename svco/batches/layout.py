"""Who attends to whom in a packed row, and the trees side by side in padded blocks for dense kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

Range = tuple[int, int]
"""[start, stop) in the row."""
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


@dataclass(frozen=True)
class Layout:
    """Who attends to whom in a row of T tokens. Segment s's queries are its own tokens; its keys are its ancestors' and
    its own, the last of them aligned (causal, bottom-right)."""

    queries: tuple[Range, ...]
    """Segments in row order; together they cover the row."""
    keys: tuple[tuple[Range, ...], ...]
    """For each segment its ancestors' ranges and, last, its own."""
    cu_q: torch.Tensor
    """(S + 1,) int32: cumulative query lengths."""
    cu_k: torch.Tensor
    """(S + 1,) int32: cumulative key lengths."""
    key_index: torch.Tensor
    """(keys,) int64: row positions of all segments' keys, one segment after another."""
    max_q: int
    """Longest segment."""
    max_k: int
    """Most keys of a segment."""

    @classmethod
    def of(cls, segments: Sequence[tuple[Range, tuple[Range, ...]]]) -> Layout:
        """From (own range, ancestors' ranges) of each segment, in row order. No segment may be empty."""
        queries = tuple(own for own, _ in segments)
        keys = tuple((*ancestors, own) for own, ancestors in segments)
        q = np.array([_length(own) for own in queries], dtype=np.int64)
        k = np.array([sum(map(_length, ranges)) for ranges in keys], dtype=np.int64)
        if not len(q) or q.min() < 1:
            raise ValueError("a layout has at least one segment, and every segment has a token")
        index = np.concatenate([np.arange(start, stop) for ranges in keys for start, stop in ranges])
        cu_q, cu_k = (torch.from_numpy(np.concatenate([[0], n.cumsum()]).astype(np.int32)) for n in (q, k))
        return cls(queries, keys, cu_q, cu_k, torch.from_numpy(index), int(q.max()), int(k.max()))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Layout:
        return replace(self, cu_q=function(self.cu_q), cu_k=function(self.cu_k), key_index=function(self.key_index))

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
            visible[rows, rows] = np.tri(stop - start, dtype=bool)
        return (first, last), visible

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The trees in padded blocks of similar length, and for each row position its place in the blocks' kept tokens; made
        once for all layers, where the layout's tensors are."""
        longest_first = sorted(self.trees, key=lambda tree: _length(tree[0]), reverse=True)
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
    parts = (torch.from_numpy(part) for part in (index, mask, np.flatnonzero(kept)))
    # A copy that blocks would wait until the GPU is through with the tower.
    return Block(*(part.to(device, non_blocking=True) for part in parts))

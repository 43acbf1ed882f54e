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
    """n trees of the row side by side, padded to L keys and M queries: how dense kernels attend."""

    keys: torch.Tensor
    """(n, L) int64: position in the row; padding repeats the tree's first token."""
    queries: torch.Tensor
    """(n, M) int64: place among the layout's queries; padding repeats the tree's first."""
    causal: int
    """The first so many queries of each tree are its first tokens and see what is before them: no mask is needed for these."""
    mask: torch.Tensor
    """(n, 1, M - causal, L) bool: may each of the other queries see key j. A padded one sees key 0, so that no row is empty."""


@dataclass(frozen=True)
class _Tree:
    """A root segment and all that attend to it."""

    span: Range
    """Its rows."""
    queries: Range
    """Its places among the layout's queries."""
    causal: int
    """Its first queries that are its first tokens, each of which sees what is before it."""
    visible: np.ndarray
    """(queries, rows) bool."""


@dataclass(frozen=True)
class Layout:
    """Who attends to whom in a row of T tokens. Segment s's queries are its own tokens, or the last of them; its keys are its
    ancestors' and its own, the last of them aligned (causal, bottom-right)."""

    queries: tuple[Range, ...]
    """The rows of each segment that attend, in row order: all of it, so that together they cover the row, or its last ones."""
    keys: tuple[tuple[Range, ...], ...]
    """For each segment its ancestors' ranges and, last, its own."""
    cu_q: torch.Tensor
    """(S + 1,) int32: cumulative query lengths."""
    cu_k: torch.Tensor
    """(S + 1,) int32: cumulative key lengths."""
    key_index: torch.Tensor
    """(keys,) int64: row positions of all segments' keys, one segment after another."""
    max_q: int
    """Most queries of a segment."""
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
        return cls(queries, keys, _cumulative(q), _cumulative(k), torch.from_numpy(index), int(q.max()), int(k.max()))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Layout:
        return replace(self, cu_q=function(self.cu_q), cu_k=function(self.cu_k), key_index=function(self.key_index))

    def only(self, rows: np.ndarray) -> Layout:
        """Of each segment the queries from its first row among ``rows`` on; its last one where it has none. So they are the
        last of their segment, and causal stays aligned."""
        wanted = np.sort(rows)
        found = np.searchsorted(wanted, [start for start, _ in self.queries])
        first = np.append(wanted, np.iinfo(np.int64).max)[found]
        queries = tuple((min(int(row), stop - 1), stop) for row, (_, stop) in zip(first, self.queries, strict=True))
        q = np.array([_length(span) for span in queries], dtype=np.int64)
        return replace(self, queries=queries, cu_q=_cumulative(q), max_q=int(q.max()))

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs see each other: what attention has to compute."""
        total = 0
        for query, ranges in zip(self.queries, self.keys, strict=True):
            n = _length(query)
            total += n * sum(map(_length, ranges)) - n * (n - 1) // 2
        return total

    @cached_property
    def trees(self) -> tuple[_Tree, ...]:
        """The trees of the row, in its order."""
        found: list[list[int]] = []
        for s, ranges in enumerate(self.keys):
            if len(ranges) == 1:
                found.append([])
            found[-1].append(s)
        ends = np.cumsum([sum(_length(self.queries[s]) for s in members) for members in found]).tolist()
        return tuple(self._tree(members, (a, b)) for members, a, b in zip(found, [0, *ends], ends, strict=False))

    def _tree(self, members: list[int], queries: Range) -> _Tree:
        root = self.keys[members[0]][0]
        first, last = root[0], self.keys[members[-1]][-1][1]
        visible = np.zeros((_length(queries), last - first), dtype=bool)
        row = 0
        for s in members:
            n = _length(self.queries[s])
            *ancestors, (start, stop) = self.keys[s]
            for low, high in ancestors:
                visible[row : row + n, low - first : high - first] = True
            visible[row : row + n, start - first : stop - first] = np.tri(n, stop - start, stop - start - n, dtype=bool)
            row += n
        causal = _length(root) if self.queries[members[0]] == root else 0
        return _Tree((first, last), queries, causal, visible)

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The trees in padded blocks of similar length, and for each query its place in what the blocks give, one behind the
        other, of each first its causal queries, then the others; made once for all layers, where the layout's tensors are."""
        longest_first = sorted(self.trees, key=lambda tree: (_length(tree.span), tree.causal), reverse=True)
        groups: list[list[_Tree]] = []
        area = longest = 0  # of the last group: its trees' area without padding, and its first tree's length
        for tree in longest_first:
            length = _length(tree.span)
            padded = (len(groups[-1]) + 1) * longest**2 if groups else 0
            if not groups or padded > _MAX_WASTE * (area + length**2) or padded > _MAX_BLOCK:
                groups.append([])
                area, longest = 0, length
            groups[-1].append(tree)
            area += length**2
        order = np.empty(sum(_length(query) for query in self.queries), dtype=np.int64)
        blocks, before = [], 0
        for group in groups:
            block = _block(group, self.cu_q.device)
            n, queries = block.queries.shape
            others = queries - block.causal
            for t, tree in enumerate(group):
                place = np.arange(_length(tree.queries))
                behind = n * block.causal + t * others + place - block.causal
                order[slice(*tree.queries)] = before + np.where(place < block.causal, t * block.causal + place, behind)
            blocks.append(block)
            before += n * queries
        return tuple(blocks), torch.from_numpy(order).to(self.cu_q.device)


@dataclass(frozen=True)
class Tail:
    """The rows of a row of T tokens whose output is wanted, and all others, of which keys and values are enough."""

    rows: torch.Tensor
    """(N,) int64: positions in the row, ascending."""
    rest: torch.Tensor
    """(T - N,) int64: all others, ascending."""
    order: torch.Tensor
    """(T,) int64: place of each row position among ``rest`` and ``rows``, one behind the other."""
    predicts: torch.Tensor
    """(R,) int64: ``PackedBatch.predicts`` as places among ``rows``."""
    layout: Layout
    """With the queries of ``rows``."""

    @classmethod
    def of(cls, layout: Layout, predicts: np.ndarray) -> Tail | None:
        """What is needed to have the output at ``predicts`` (R,); None: every row is."""
        narrowed = layout.only(predicts)
        rows = np.concatenate([np.arange(*span) for span in narrowed.queries])
        total = layout.queries[-1][1]
        if len(rows) == total:
            return None
        rest = np.setdiff1d(np.arange(total), rows)
        order = np.argsort(np.concatenate([rest, rows]))
        places = np.searchsorted(rows, predicts)
        on_rows, off_rows, at, predicting = map(torch.from_numpy, (rows, rest, order, places))
        return cls(on_rows, off_rows, at, predicting, narrowed)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Tail:
        moved = {name: function(value) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved, layout=self.layout.map(function))


def _length(span: Range) -> int:
    start, stop = span
    return stop - start


def _cumulative(lengths: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))


def _block(trees: list[_Tree], device: torch.device) -> Block:
    longest = max(_length(tree.span) for tree in trees)
    most = max(_length(tree.queries) for tree in trees)
    causal = min(tree.causal for tree in trees)
    keys = np.empty((len(trees), longest), dtype=np.int64)
    queries = np.empty((len(trees), most), dtype=np.int64)
    mask = np.zeros((len(trees), 1, most - causal, longest), dtype=bool)
    mask[..., 0] = True
    for n, tree in enumerate(trees):
        some, length = tree.visible.shape
        keys[n], queries[n] = tree.span[0], tree.queries[0]
        keys[n, :length] = np.arange(*tree.span)
        queries[n, :some] = np.arange(*tree.queries)
        mask[n, 0, : some - causal, :length] = tree.visible[causal:]
    rows, places, seen = (torch.from_numpy(part).to(device) for part in (keys, queries, mask))
    return Block(rows, places, causal, seen)

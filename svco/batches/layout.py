"""Who attends to whom in a packed row, and the trees side by side in padded blocks for dense kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import numpy as np
import torch

from .forks import Forks

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
    depth: np.ndarray
    """(rows,) int64: the tokens before each on its path."""
    at: np.ndarray
    """(queries,) int64: which rows they are."""

    def within(self, window: int) -> _Tree:
        """The same where no query sees a key that stands ``window`` tokens or more before it on its path."""
        near = self.depth > self.depth[self.at, None] - window
        return replace(self, causal=min(self.causal, window), visible=self.visible & near)


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
    """Most queries of a segment."""
    max_k: int
    """Most keys of a segment: the longest path."""
    causal: bool = True
    """A query sees its segment's keys up to its own, the last of both aligned (bottom-right); False: all of them."""
    places: torch.Tensor | None = None
    """(queries,) int64: which of the layout's queries they are; None: all."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: function(v) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Layout(Call):
    """Who attends to whom in a row of T tokens. Segment s's queries are its own tokens, or the last of them; its keys are its
    ancestors' and its own, the last of them aligned. It is a call of all segments, and that one does where all are causal."""

    queries: tuple[Range, ...]
    """The rows of each segment that attend, in row order: all of it, so that together they cover the row, or its last ones."""
    keys: tuple[tuple[Range, ...], ...]
    """For each segment its ancestors' ranges and, last, its own."""
    two_way: tuple[bool, ...]
    """For each segment whether its own tokens see each other in both directions; else causally."""
    calls: tuple[Call, ...] = ()
    """The causal segments and the two-way ones, a call each; empty where all are causal."""
    order: torch.Tensor | None = None
    """(queries,) int64: where each is among the ``places`` of all calls, one behind another; None without calls."""

    @classmethod
    def of(cls, segments: Sequence[tuple[Range, tuple[Range, ...]]], two_way: Sequence[bool] = ()) -> Layout:
        """From (own range, ancestors' ranges) of each segment, in row order, and which of them are two-way; empty: none. No
        segment may be empty."""
        queries = [own for own, _ in segments]
        if not queries or min(map(_length, queries)) < 1:
            raise ValueError("a layout has at least one segment, and every segment has a token")
        return cls._laid(queries, [(*ancestors, own) for own, ancestors in segments], two_way or [False] * len(queries))

    @classmethod
    def _laid(cls, queries: Sequence[Range], keys: Sequence[tuple[Range, ...]], two_way: Sequence[bool]) -> Layout:
        whole = cls(queries=tuple(queries), keys=tuple(keys), two_way=tuple(two_way), **_gathered(queries, keys))
        if not any(two_way):
            return whole
        ends = np.cumsum([_length(span) for span in queries])
        calls = []
        for causal in (True, False):
            if members := [s for s, both in enumerate(two_way) if both is not causal]:
                places = _places([(int(ends[s]) - _length(queries[s]), int(ends[s])) for s in members])
                gathered = _gathered([queries[s] for s in members], [keys[s] for s in members])
                calls.append(Call(causal=causal, places=places, **gathered))
        order = torch.argsort(torch.cat([call.places for call in calls if call.places is not None]))
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

    def only(self, rows: np.ndarray) -> Layout:
        """Of each segment the queries from its first row among ``rows`` on, and none of a segment that has no such row. So they
        are the last of their segment, and causal stays aligned."""
        wanted = np.append(np.sort(rows), np.iinfo(np.int64).max)
        first = wanted[np.searchsorted(wanted, [start for start, _ in self.queries])].tolist()
        kept = [s for s, (_, stop) in enumerate(self.queries) if first[s] < stop]
        return self._laid(
            [(first[s], self.queries[s][1]) for s in kept],
            [self.keys[s] for s in kept],
            [self.two_way[s] for s in kept],
        )

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs see each other: what attention has to compute."""
        total = 0
        for query, ranges, both in zip(self.queries, self.keys, self.two_way, strict=True):
            n = _length(query)
            total += n * sum(map(_length, ranges)) - (0 if both else n * (n - 1) // 2)
        return total

    @cached_property
    def trees(self) -> tuple[_Tree, ...]:
        """The trees of the row, in its order."""
        found = [list(members) for _, members in groupby(range(len(self.keys)), key=lambda s: self.keys[s][0])]
        ends = np.cumsum([sum(_length(self.queries[s]) for s in members) for members in found]).tolist()
        return tuple(self._tree(members, (a, b)) for members, a, b in zip(found, [0, *ends], ends, strict=False))

    def _tree(self, members: list[int], queries: Range) -> _Tree:
        root = self.keys[members[0]][0]
        first, last = root[0], self.keys[members[-1]][-1][1]
        visible = np.zeros((_length(queries), last - first), dtype=bool)
        depth = np.zeros(last - first, dtype=np.int64)
        row = 0
        for s in members:
            n = _length(self.queries[s])
            *ancestors, (start, stop) = self.keys[s]
            for low, high in ancestors:
                visible[row : row + n, low - first : high - first] = True
            seen = True if self.two_way[s] else np.tri(n, stop - start, stop - start - n, dtype=bool)
            visible[row : row + n, start - first : stop - first] = seen
            path = np.concatenate([np.arange(*span) for span in self.keys[s]])
            depth[path - first] = np.arange(len(path))
            row += n
        causal = _length(root) if self.queries[members[0]] == root and not self.two_way[members[0]] else 0
        at = np.concatenate([np.arange(*self.queries[s]) for s in members]) - first
        return _Tree((first, last), queries, causal, visible, depth, at)

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The trees in padded blocks of similar length, and for each query its place in what the blocks give, one behind the
        other, of each first its causal queries, then the others; made once for all layers, where the layout's tensors are."""
        return self._blocks(self.trees)

    def blocks_within(self, window: int) -> tuple[tuple[Block, ...], torch.Tensor]:
        """The same for layers whose tokens see no key that stands ``window`` tokens or more before them on their path; made
        once a window."""
        if window not in self._narrow:
            self._narrow[window] = self._blocks([tree.within(window) for tree in self.trees])
        return self._narrow[window]

    @cached_property
    def _narrow(self) -> dict[int, tuple[tuple[Block, ...], torch.Tensor]]:
        return {}

    def _blocks(self, trees: Iterable[_Tree]) -> tuple[tuple[Block, ...], torch.Tensor]:
        longest_first = sorted(trees, key=lambda tree: (_length(tree.span), tree.causal), reverse=True)
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
        return tuple(blocks), torch.from_numpy(order).to(self.cu_q.device, non_blocking=True)


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


def _gathered(queries: Sequence[Range], keys: Sequence[tuple[Range, ...]]) -> dict[str, Any]:
    """What a call says of its segments."""
    q = np.array([_length(own) for own in queries], dtype=np.int64)
    k = np.array([sum(map(_length, ranges)) for ranges in keys], dtype=np.int64)
    cu_q, cu_k = (torch.from_numpy(np.concatenate([[0], n.cumsum()]).astype(np.int32)) for n in (q, k))
    index = _places([span for ranges in keys for span in ranges])
    return {"cu_q": cu_q, "cu_k": cu_k, "key_index": index, "max_q": int(q.max()), "max_k": int(k.max())}


def _places(ranges: Sequence[Range]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.arange(*span) for span in ranges]))


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
    # A copy that blocks would wait until the GPU is through with the tower.
    rows, places, seen = (torch.from_numpy(part).to(device, non_blocking=True) for part in (keys, queries, mask))
    return Block(rows, places, causal, seen)

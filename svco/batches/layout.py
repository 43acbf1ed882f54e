"""Who attends to whom in a packed row, and which of its rows the last layer is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import numpy as np
import torch

from .blocks import Blocks, Range, Tree, length_of, side_by_side
from .forks import Forks


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
        if not queries or min(map(length_of, queries)) < 1:
            raise ValueError("a layout has at least one segment, and every segment has a token")
        return cls._laid(queries, [(*ancestors, own) for own, ancestors in segments], two_way or [False] * len(queries))

    @classmethod
    def _laid(cls, queries: Sequence[Range], keys: Sequence[tuple[Range, ...]], two_way: Sequence[bool]) -> Layout:
        whole = cls(queries=tuple(queries), keys=tuple(keys), two_way=tuple(two_way), **_gathered(queries, keys))
        if not any(two_way):
            return whole
        ends = np.cumsum([length_of(span) for span in queries])
        calls = []
        for causal in (True, False):
            if members := [s for s, both in enumerate(two_way) if both is not causal]:
                places = _places([(int(ends[s]) - length_of(queries[s]), int(ends[s])) for s in members])
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
            n = length_of(query)
            total += n * sum(map(length_of, ranges)) - (0 if both else n * (n - 1) // 2)
        return total

    @cached_property
    def trees(self) -> tuple[Tree, ...]:
        """The trees of the row, in its order."""
        found = [list(members) for _, members in groupby(range(len(self.keys)), key=lambda s: self.keys[s][0])]
        ends = np.cumsum([sum(length_of(self.queries[s]) for s in members) for members in found]).tolist()
        return tuple(self._tree(members, (a, b)) for members, a, b in zip(found, [0, *ends], ends, strict=False))

    def _tree(self, members: list[int], queries: Range) -> Tree:
        first, last = self.keys[members[0]][0][0], self.keys[members[-1]][-1][1]
        visible = np.zeros((length_of(queries), last - first), dtype=bool)
        depth = np.zeros(last - first, dtype=np.int64)
        row = 0
        for s in members:
            n = length_of(self.queries[s])
            *ancestors, (start, stop) = self.keys[s]
            for low, high in ancestors:
                visible[row : row + n, low - first : high - first] = True
            seen = True if self.two_way[s] else np.tri(n, stop - start, stop - start - n, dtype=bool)
            visible[row : row + n, start - first : stop - first] = seen
            path = np.concatenate([np.arange(*span) for span in self.keys[s]])
            depth[path - first] = np.arange(len(path))
            row += n
        at = np.concatenate([np.arange(*self.queries[s]) for s in members]) - first
        return Tree((first, last), queries, visible, depth, at)

    @cached_property
    def blocks(self) -> Blocks:
        """The trees in padded blocks of similar length, and for each query its place in what the blocks' strips give, one
        behind the other; made once for all layers, where the layout's tensors are."""
        return side_by_side(self.trees, self.cu_q.device)

    def blocks_within(self, window: int) -> Blocks:
        """The same for layers whose tokens see no key that stands ``window`` tokens or more before them on their path; made
        once a window."""
        if window not in self._narrow:
            self._narrow[window] = side_by_side([tree.within(window) for tree in self.trees], self.cu_q.device)
        return self._narrow[window]

    @cached_property
    def _narrow(self) -> dict[int, Blocks]:
        return {}


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


def _gathered(queries: Sequence[Range], keys: Sequence[tuple[Range, ...]]) -> dict[str, Any]:
    """What a call says of its segments."""
    q = np.array([length_of(own) for own in queries], dtype=np.int64)
    k = np.array([sum(map(length_of, ranges)) for ranges in keys], dtype=np.int64)
    cu_q, cu_k = (torch.from_numpy(np.concatenate([[0], n.cumsum()]).astype(np.int32)) for n in (q, k))
    index = _places([span for ranges in keys for span in ranges])
    return {"cu_q": cu_q, "cu_k": cu_k, "key_index": index, "max_q": int(q.max()), "max_k": int(k.max())}


def _places(ranges: Sequence[Range]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.arange(*span) for span in ranges]))

"""The trees of a packed row side by side in padded blocks: how dense kernels attend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

Range = tuple[int, int]
"""[start, stop) in the row."""
_MAX_WASTE = 1.2
"""Trees share a padded block while its area is at most this times theirs."""
_MAX_BLOCK = 1 << 24
"""Largest area of a padded block, in (query, key) places."""
STRIP = 192
"""Fewest queries of a strip, where a tree has more: below it torch's kernel for CPUs works in smaller tiles, and slower."""


@dataclass(frozen=True)
class Strip:
    """Some queries of a block's trees, side by side, and the keys between the first and the last that any of them sees."""

    queries: slice
    """Of the block's M."""
    keys: slice
    """Of its L."""
    mask: torch.Tensor
    """(n, 1, queries, keys) bool: may a query see a key. A padded one sees the first, so that no row is empty."""


@dataclass(frozen=True)
class Block:
    """n trees of the row side by side, padded to L keys and M queries: how dense kernels attend."""

    keys: torch.Tensor
    """(n, L) int64: position in the row; padding repeats the tree's first token."""
    queries: torch.Tensor
    """(n, M) int64: place among the layout's queries; padding repeats the tree's first."""
    strips: tuple[Strip, ...]
    """All queries, in order."""


@dataclass(frozen=True)
class Tree:
    """A root segment and all that attend to it."""

    span: Range
    """Its rows."""
    queries: Range
    """Its places among the layout's queries."""
    visible: np.ndarray
    """(queries, rows) bool."""
    depth: np.ndarray
    """(rows,) int64: the tokens before each on its path."""
    at: np.ndarray
    """(queries,) int64: which rows they are."""

    def within(self, window: int) -> Tree:
        """The same where no query sees a key that stands ``window`` tokens or more before it on its path."""
        near = self.depth > self.depth[self.at, None] - window
        return replace(self, visible=self.visible & near)


Blocks = tuple[tuple[Block, ...], torch.Tensor]
"""Trees in padded blocks of similar length, and for each query its place (queries,) int64 in what the blocks' strips give, one
behind the other."""


def side_by_side(trees: Sequence[Tree], device: torch.device) -> Blocks:
    """The blocks of ``trees``, whose queries together are a layout's, with their tensors on ``device``."""
    longest_first = sorted(trees, key=lambda tree: length_of(tree.span), reverse=True)
    groups: list[list[Tree]] = []
    area = longest = 0  # of the last group: its trees' area without padding, and its first tree's length
    for tree in longest_first:
        length = length_of(tree.span)
        padded = (len(groups[-1]) + 1) * longest**2 if groups else 0
        if not groups or padded > _MAX_WASTE * (area + length**2) or padded > _MAX_BLOCK:
            groups.append([])
            area, longest = 0, length
        groups[-1].append(tree)
        area += length**2
    order = np.empty(sum(length_of(tree.queries) for tree in trees), dtype=np.int64)
    blocks, before = [], 0
    for group in groups:
        block = _block(group, device)
        blocks.append(block)
        for strip in block.strips:
            height = strip.queries.stop - strip.queries.start
            for tree in group:
                inside = np.arange(*tree.queries)[strip.queries]
                order[inside] = before + np.arange(len(inside))
                before += height
    return tuple(blocks), on_device(order, device)


def _block(trees: list[Tree], device: torch.device) -> Block:
    longest = max(length_of(tree.span) for tree in trees)
    most = max(length_of(tree.queries) for tree in trees)
    keys = np.empty((len(trees), longest), dtype=np.int64)
    queries = np.empty((len(trees), most), dtype=np.int64)
    visible = np.zeros((len(trees), 1, most, longest), dtype=bool)
    for n, tree in enumerate(trees):
        some, length = tree.visible.shape
        keys[n], queries[n] = tree.span[0], tree.queries[0]
        keys[n, :length] = np.arange(*tree.span)
        queries[n, :some] = np.arange(*tree.queries)
        visible[n, 0, :some, :length] = tree.visible
    rows, places = (on_device(part, device) for part in (keys, queries))
    return Block(rows, places, _strips(visible, device))


def _strips(visible: np.ndarray, device: torch.device) -> tuple[Strip, ...]:
    """Of (n, 1, M, L) bool: of every strip the keys that nobody in it sees are left out at both ends."""
    most = visible.shape[2]
    bounds = np.linspace(0, most, max(1, most // STRIP) + 1).astype(int).tolist()
    strips = []
    for start, stop in zip(bounds, bounds[1:]):
        part = visible[:, :, start:stop]
        seen = np.flatnonzero(part.any((0, 1, 2)))
        low, high = int(seen[0]), int(seen[-1]) + 1
        mask = np.ascontiguousarray(part[..., low:high])
        mask[~mask.any(-1), 0] = True
        strips.append(Strip(slice(start, stop), slice(low, high), on_device(mask, device)))
    return tuple(strips)


def length_of(span: Range) -> int:
    """Its tokens."""
    start, stop = span
    return stop - start


def on_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """``array`` as a tensor there. A copy that blocks would wait until the GPU is through with the tower."""
    return torch.from_numpy(array).to(device, non_blocking=True)

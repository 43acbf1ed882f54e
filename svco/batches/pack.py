"""Shared-prefix packing: many pairs in one unpadded row, each a small tree per condition.

The two responses scored under one image share everything up to the response, so a condition is laid out once as a
prefix with both responses behind it as branches. A branch attends to its prefix and causally to itself, never to its
sibling; its positions go on from the prefix's end. The last token of a response predicts nothing and is left out: a
response of one token makes no branch at all. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..basics.views import ALL_CELLS, BLIND_CONDITION, VIEWS, Cell, condition, prefix_of, views_of
from ..families import ModelSide, Pictures
from .blocks import Range
from .encode import EncodedPair
from .layout import Layout, Tail
from .lengths import Lengths


@dataclass(frozen=True)
class PackedBatch:
    """P pairs as one row of T tokens, of which R are scored."""

    input_ids: torch.Tensor
    """(T,) int64, one placeholder an image feature."""
    position_ids: torch.Tensor
    """(axes, 1, T) int64; restart at 0 with each prefix and go on at its length in each branch."""
    layout: Layout
    """Who attends to whom."""
    pixels: torch.Tensor
    """float32: the rows of every image that some prefix shows, once, in the order of their placeholders."""
    grids: tuple[tuple[int, ...], ...]
    """What the family must know of each image's rows, on the host."""
    image_slots: torch.Tensor
    """(features of all images,) int64: row positions of the placeholders."""
    predicts: torch.Tensor
    """(R,) int64: row position whose output predicts a scored token (a prefix's last position does for both branches)."""
    targets: torch.Tensor
    """(R,) int64: the scored token ids."""
    cell: torch.Tensor
    """(R,) int64: flat index into (P, 2, V) that the token's log-probability adds to."""
    tokens: torch.Tensor
    """(P, 2) int64: scored tokens of each response."""
    weight: torch.Tensor
    """(P,) float32: 1, or 0 for fillers."""
    reference_logps: torch.Tensor | None = None
    """(P, 2, V) float32: what a cached reference said of these pairs."""
    view_count: int = len(VIEWS)
    """V: 4 where some cell is of a corrupted image, else 3."""
    tail: Tail | None = None
    """The rows at ``predicts``, for the last decoder layer; None: every row is one, or nobody asks."""

    @property
    def llm_tokens(self) -> int:
        """Tokens that go through the language model in one stream."""
        return len(self.input_ids)

    def owners(self) -> torch.Tensor:
        """(T,) int64, on the CPU: the pair that each row position is of."""
        roots = [own[0] for own, keys in zip(self.layout.queries, self.layout.keys, strict=True) if len(keys) == 1]
        starts = torch.zeros(len(self.input_ids), dtype=torch.int64)
        starts[roots] = 1
        tree = starts.cumsum(0) - 1
        of_tree = torch.zeros(len(roots), dtype=torch.int64)
        of_tree[tree[self.predicts.cpu()]] = self.cell.cpu() // (2 * self.view_count)
        return of_tree[tree]

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> PackedBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: function(v) for name, v in values.items() if isinstance(v, torch.Tensor)}
        tail = None if self.tail is None else self.tail.map(function)
        return replace(self, **moved, layout=self.layout.map(function), tail=tail)

    def to(self, device: torch.device) -> PackedBatch:
        return self if device.type == "cpu" else self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PackedBatch:
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class Tree:
    """A prefix and the responses scored behind it."""

    prefix: np.ndarray
    """(p,) int64 token ids, p ≥ 1."""
    branches: tuple[tuple[np.ndarray, int], ...]
    """(response ids, flat cell) of each response."""
    positions: np.ndarray | None = None
    """(axes, p) int64 positions of the prefix; None: counted from 0 on one axis."""


def pack(
    trees: Iterable[Tree],
    pictures: Pictures,
    tokens: list[list[int]],
    weight: list[float],
    family: ModelSide,
    views: int = len(VIEWS),
) -> PackedBatch:
    """Lays ``trees`` one behind another. ``pictures`` are the images of their placeholders, in order; ``tokens`` (P, 2) and
    ``weight`` (P,) are of the pairs, ``views`` is V."""
    ids, positions, predicts, targets, cells = [], [], [], [], []
    segments: list[tuple[Range, tuple[Range, ...]]] = []
    kinds: list[bool] = []
    here = 0

    def lay(segment: np.ndarray, places: np.ndarray, ancestors: tuple[Range, ...], two_way: bool = False) -> Range:
        nonlocal here
        own = (here, here + len(segment))
        ids.append(segment)
        positions.append(places)
        segments.append((own, ancestors))
        kinds.append(two_way)
        here = own[1]
        return own

    for tree in trees:
        places = np.arange(len(tree.prefix))[None] if tree.positions is None else tree.positions
        prefix: tuple[Range, ...] = ()
        for start, stop, two_way in _parted(tree.prefix, family):
            prefix = (*prefix, lay(tree.prefix[start:stop], places[:, start:stop], prefix, two_way))
        for response, cell in tree.branches:
            predicts.append(np.array([prefix[-1][1] - 1]))
            if len(response) > 1:
                # Text counts on every axis alike, from behind the farthest position of the prefix.
                behind = places.max() + 1 + np.arange(len(response) - 1)
                behind = np.broadcast_to(behind, (len(places), len(behind)))
                predicts.append(np.arange(*lay(response[:-1], behind, prefix)))
            targets.append(response)
            cells.append(np.full(len(response), cell))
    row, layout, predicting = np.concatenate(ids), Layout.of(segments, kinds), np.concatenate(predicts)
    return PackedBatch(
        input_ids=torch.from_numpy(row),
        position_ids=torch.from_numpy(np.concatenate(positions, axis=1)).unsqueeze(1),
        layout=layout,
        pixels=pictures.pixels,
        grids=pictures.grids,
        image_slots=torch.from_numpy(np.flatnonzero(family.image_token_mask(row))),
        predicts=torch.from_numpy(predicting),
        targets=torch.from_numpy(np.concatenate(targets)),
        cell=torch.from_numpy(np.concatenate(cells)),
        tokens=torch.tensor(tokens),
        weight=torch.tensor(weight, dtype=torch.float32),
        view_count=views,
        tail=Tail.of(layout, predicting),
    )


def _parted(prefix: np.ndarray, family: ModelSide) -> list[tuple[int, int, bool]]:
    """(start, stop, two-way) of the segments of a prefix: one, or text and images apart where an image's features see each
    other in both directions."""
    if not family.two_way_images:
        return [(0, len(prefix), False)]
    shown = family.image_token_mask(prefix)
    bounds = [0, *(np.flatnonzero(np.diff(shown)) + 1).tolist(), len(prefix)]
    return [(start, stop, bool(shown[start])) for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class PackedCollate:
    """Encoded pairs -> :class:`PackedBatch`, for the cells an objective reads."""

    cells: frozenset[Cell] = ALL_CELLS
    """The (side, view) cells to lay out; the others stay 0. Conditions and images that none of them needs are left out."""

    def __call__(self, pairs: Sequence[EncodedPair], family: ModelSide) -> PackedBatch:
        trees, images = [], []
        views = len(views_of(self.cells))
        for p, pair in enumerate(pairs):
            for shown, cells in self._conditions.items():
                text = prefix_of(shown)
                branches = tuple(
                    (pair.text.response(side, text), (2 * p + side) * views + view) for side, view in cells
                )
                positions = pair.text.positions[text] if pair.text.positions else None
                trees.append(Tree(pair.text.prefixes[text], branches, positions))
                if shown != BLIND_CONDITION:
                    images.append(pair.images[shown])
        tokens = [[len(response) for response in pair.text.responses] for pair in pairs]
        return pack(trees, family.pixels(images), tokens, [pair.weight for pair in pairs], family, views)

    def costs(self, lengths: Lengths) -> np.ndarray:
        """(N,) int64 tokens of each pair in the row; of a bad pair those of its filler."""
        total = np.zeros(len(lengths.cut), dtype=np.int64)
        for shown, cells in self._conditions.items():
            total += lengths.prefixes[:, prefix_of(shown)]
            for side, _ in cells:
                total += np.maximum(lengths.responses[:, side] - 1, 0)
        return total

    @cached_property
    def _conditions(self) -> dict[int, list[Cell]]:
        """Condition -> the cells scored under it, both in order: image 0, image 1, no image, corrupted 0, 1; side 0, 1."""
        needed: dict[int, list[Cell]] = {}
        for shown, side, view in sorted((condition(side, view), side, view) for side, view in self.cells):
            needed.setdefault(shown, []).append((side, view))
        return needed

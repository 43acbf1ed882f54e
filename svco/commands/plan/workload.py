"""What a run computes, without a machine: the tokens of a pair, micro-batches and steps, and what is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.errors import UserError
from ...basics.views import BLIND_CONDITION, Cell, condition, prefix_of
from ...recipe.config import ALL_LINEAR, Config
from .architecture import Architecture
from .layers import Linear

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
"""``model.dtype`` -> bytes of a weight; ``auto`` is bfloat16 on a GPU."""
STRIP = 192
"""Queries of a strip of a dense block: :data:`svco.batches.blocks.STRIP`, which a test compares."""


_ENDLESS = 1e12
"""A window that no sequence leaves."""


NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: itself, its share of a block's 8-bit scale, and of the float32 scale of 256 such."""


@dataclass(frozen=True)
class Row:
    """A packed row, of one pair or of many: everything that work and memory depend on."""

    tokens: float = 0.0
    """T: tokens of one stream."""
    keys: float = 0.0
    """Keys of all segments, a prefix counted once for itself and once a branch."""
    area: float = 0.0
    """(query, key) pairs that see each other."""
    blocks: float = 0.0
    """Places in the masks of dense blocks, one a tree: of each strip of queries, and the keys up to the last it sees."""
    asked: float = 0.0
    """Tokens that predict a scored one: those the last layer is asked for."""
    asked_area: float = 0.0
    """Of ``area``, the pairs whose query is one of these."""
    asked_blocks: float = 0.0
    """As ``blocks``, with their queries."""
    near: float = 0.0
    """As ``area``, in layers with a window."""
    asked_near: float = 0.0
    """As ``asked_area``, in such a layer."""
    scored: float = 0.0
    """R: scored tokens."""
    images: float = 0.0
    """Images encoded."""
    features: float = 0.0
    """Image tokens."""
    crops: float = 0.0
    """Crops that the vision tower sees."""

    def times(self, count: float) -> Row:
        """``count`` such rows behind one another."""
        return Row(**{name: value * count for name, value in vars(self).items()})


def pair_row(
    cells: Iterable[Cell],
    prefixes: Sequence[Any],
    responses: Sequence[Any],
    features: Any,
    crops: Any = 1.0,
    a: Architecture | None = None,
) -> Row:
    """One pair packed: ``prefixes`` of image 0, image 1 and no image and ``responses`` of the two sides in tokens,
    ``features`` of an image. Each condition is laid out once as a prefix with a branch for each cell scored under it; a branch
    lacks its last token. Numbers, or arrays of one number a pair. ``a`` says which tokens see each other; None: each those
    before it.

    Where an image's tokens see each other they are a segment of their own; the few of text before it count as if behind it.
    """
    window = (a.window if a else 0) or _ENDLESS
    conditions: dict[int, list[int]] = {}
    for side, view in sorted(cells):
        conditions.setdefault(condition(side, view), []).append(side)
    tokens = keys = area = blocks = asked = asked_area = asked_blocks = near = asked_near = scored = images = 0.0
    for shown, sides in conditions.items():
        prefix = prefixes[prefix_of(shown)]
        branches = [responses[side] - 1 for side in sides]
        behind = sum(branches)
        tree = prefix + behind
        both = features if a and a.two_way_images and shown != BLIND_CONDITION else 0.0
        seen, seen_near = (
            sum(_seen(prefix + branch, w) - _seen(prefix, w) for branch in branches) for w in (_ENDLESS, window)
        )
        tokens = tokens + tree
        strips = tree // STRIP + (tree < STRIP)
        blocks = blocks + tree**2 * (strips + 1) / (2 * strips)
        asked_blocks = asked_blocks + (1 + behind) * tree
        keys = keys + both + prefix + sum(prefix + branch for branch in branches)
        area = area + _seen(prefix, _ENDLESS) + both * np.maximum(both - 1, 0) / 2 + seen
        near = near + _seen(prefix, window) + both * np.maximum(both - 1, 0) / 2 + seen_near
        asked = asked + 1 + behind
        asked_area = asked_area + prefix + seen
        asked_near = asked_near + np.minimum(prefix, window) + seen_near
        scored = scored + sum(responses[side] for side in sides)
        images += shown != BLIND_CONDITION
    return Row(
        tokens=tokens,
        keys=keys,
        area=area,
        blocks=blocks,
        asked=asked,
        asked_area=asked_area,
        asked_blocks=asked_blocks,
        near=near,
        asked_near=asked_near,
        scored=scored,
        images=images,
        features=images * features,
        crops=images * crops,
    )


def _seen(tokens: Any, window: float) -> Any:
    """(query, key) pairs of a causal sequence of ``tokens`` that see each other within ``window``."""
    first = np.minimum(tokens, window)
    return first * (first + 1) / 2 + (tokens - first) * window


@dataclass(frozen=True)
class Tuning:
    """What is trained and what it is compared with."""

    full: bool
    """The language model and projector, or adapters."""
    rank: int
    """LoRA's rank."""
    targets: tuple[str, ...]
    """Linear layers with adapters."""
    trains_projector: bool
    """Whether the projector learns."""
    reference: str
    """``lockstep``, ``frozen-copy``, ``cached`` or ``none``."""
    weight_bytes: int = 2
    """Bytes of a weight."""
    quantised: bool = False
    """The decoder layers' matrices are held in 4 bits."""
    compiled: bool = False
    """Decoder layers are compiled: what is computed again is the compiler's choice."""
    dropout: float = 0.0
    """Of the adapters."""

    @classmethod
    def of(cls, config: Config, reference: str) -> Tuning:
        """What recipe ``config`` trains, with the ``reference`` that was chosen for it."""
        full = config.model.tune == "full"
        return cls(
            full,
            0 if full else config.lora.rank,
            config.lora.targets,
            full or config.model.train_projector,
            reference,
            BYTES[config.model.dtype],
            config.model.quantise != "none",
            config.model.compile,
            config.lora.dropout,
        )

    @property
    def live(self) -> bool:
        """A reference is computed beside the policy."""
        return self.reference in ("lockstep", "frozen-copy")

    @property
    def copied(self) -> bool:
        """It is a second model."""
        return self.reference == "frozen-copy"

    def adapters(self, a: Architecture) -> int:
        """Weights of the adapters of one decoder layer that attends."""
        return sum(self.adapter(linear) for linear in a.linears)

    def adapter(self, linear: Linear) -> int:
        """Weights of the adapter of one linear layer."""
        return self.rank * (linear.inputs + linear.outputs) if self.adapts(linear.name) else 0

    def adapts(self, *names: str) -> bool:
        """Whether a linear layer of one of these names has an adapter."""
        return bool({ALL_LINEAR, *names} & {*self.targets})

    def keeps_input(self, zero3: bool, *names: str) -> bool:
        """Whether the backward pass wants the input of one of these linear layers again; ``zero3``: its own linear function,
        which always keeps it."""
        return self.full or zero3 or self.adapts(*names)

    @property
    def joined(self) -> bool:
        """A matrix and its adapter are one product (:mod:`svco.model.adapted`)."""
        return not (self.quantised or self.compiled or self.dropout)

    @property
    def adding(self) -> int:
        """How many times as many elements as a matrix has outputs are read and written to add what its adapter gives."""
        return 2 if self.joined else 5

    def spared(self, a: Architecture, last: Linear, zero3: bool) -> int:
        """Weights of what recomputing a layer leaves out: products by ``last``, its last matrix, that nothing needs. ``zero3``:
        its own linear function saves its input after it has multiplied."""
        if self.compiled or a.hidden_norms > 2:  # with more norms one comes behind, which needs what it gives
            return 0
        low = self.rank * last.outputs
        if self.adapter(last) and self.joined:
            return last.weights + low
        return 0 if zero3 else low if self.adapter(last) else last.weights

    def trained(self, a: Architecture) -> int:
        """Weights that learn."""
        if self.full:
            return a.language + a.projector_weights
        adapters = sum(self.adapter(linear) for linear in a.every_linear)
        return adapters + (a.projector_weights if self.trains_projector else 0)

    def copy(self, a: Architecture) -> int:
        """Weights of the reference's own: a frozen copy without its tower."""
        return a.language + a.projector_weights if self.copied else 0

    def base(self, a: Architecture) -> float:
        """Bytes of the whole base."""
        packed = self.packed(a)
        return self.weight_bytes * (a.weights - packed) + NF4 * packed

    def packed(self, a: Architecture) -> int:
        """Weights held in 4 bits."""
        return sum(linear.weights for linear in a.every_linear) if self.quantised else 0

    def held(self, a: Architecture) -> int:
        """Weights of everything that is loaded: policy, adapters, a trained projector beside the original, copy."""
        return a.weights + self.copy(a) + (0 if self.full else self.trained(a))


@dataclass(frozen=True)
class Micros:
    """How a step is divided."""

    count: int
    """Micro-batches a rank and step."""
    row: Row
    """One of them, of the fullest rank: the average."""
    largest: Row
    """The largest, for memory."""


def divide(pair: Row, longest: Row, global_batch: int, ranks: int, budget: int) -> Micros:
    """Micro-batches of a step of ``global_batch`` pairs over ``ranks`` under a token ``budget``."""
    if global_batch < ranks:
        raise UserError(
            f"optim.global_batch is {global_batch} pairs but there are {ranks} GPUs; every rank needs at least one pair a step."
        )
    most = -(-global_batch // ranks)
    at_once = max(1, min(most, int(budget // pair.tokens)))
    count = -(-most // at_once)
    # The fullest one holds as many average pairs, or as many of the longest as the budget takes, or one that exceeds it.
    longest_at_once = max(1, min(most, int(budget // longest.tokens)))
    largest = max(pair.times(-(-most // count)), longest.times(longest_at_once), key=lambda row: row.tokens)
    return Micros(count, pair.times(most / count), largest)

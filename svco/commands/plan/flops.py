"""Floating-point operations of a micro-batch, in closed form; 2 a multiply-add.

They are those that are done, recomputation included. Attention counts what is visible: kernels skip the other half where it is
causal. The last layer has queries, output and MLP of the tokens that predict a scored one alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import delta
from .architecture import Architecture
from .layers import Linear
from .workload import Row, Tuning


@dataclass(frozen=True)
class Flops:
    """One micro-batch's work by part."""

    forward: float
    """Policy's layers, forward."""
    reference: float
    """The reference's layers."""
    recompute: float
    """The policy's layers again, in the backward pass."""
    backward: float
    """Policy's layers, backward."""
    head: float
    """Log-probs and their derivatives, both models."""
    vision: float
    """Tower and projector."""

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def flops(a: Architecture, tuning: Tuning, row: Row, recompute: int, zero3: bool) -> Flops:
    """The work of ``row`` with ``recompute`` layers computed twice, but for a layer's last product (:meth:`Tuning.spared`)."""
    if a.delta:
        states = a.delta.among(recompute)
        made = flops(a.attending, tuning, row, recompute - states, zero3)
        linear, adapters, rule = delta.layer_flops(a.delta, tuning, row)
        count = len(a.delta.numbers)
        again = linear + adapters + rule - 2 * tuning.spared(a, a.delta.linears[-1], zero3) * row.tokens
        return replace(
            made,
            forward=made.forward + count * (linear + adapters + rule),
            reference=made.reference + count * (linear + rule) * tuning.live,
            recompute=made.recompute + states * again,
            backward=made.backward + count * (linear * (2 if tuning.full else 1) + 2 * adapters + 2 * rule),
        )
    # Layers with a window and layers without count as their mean.
    whole = _layer(a, tuning, row, row.tokens, row.area + a.local * (row.near - row.area))
    last = _layer(a, tuning, row, row.asked, row.asked_area + a.local * (row.asked_near - row.asked_area))
    spare = 2 * tuning.spared(a, a.linears[-1], zero3)
    again = min(recompute, a.layers - 1) * (whole.forward - spare * row.tokens)
    if recompute == a.layers:
        again += last.forward - spare * row.asked
    return Flops(
        forward=(a.layers - 1) * whole.forward + last.forward,
        reference=((a.layers - 1) * whole.reference + last.reference) * tuning.live,
        recompute=again,
        backward=(a.layers - 1) * whole.backward + last.backward,
        head=2 * row.scored * a.embedding * _head_products(tuning),
        vision=_tower(a, row) + _projector(a, tuning, row),
    )


@dataclass(frozen=True)
class _Layer:
    """One decoder layer's work: the policy's, the reference's, and the policy's backward."""

    forward: float
    reference: float
    backward: float


def _layer(a: Architecture, tuning: Tuning, row: Row, asked: float, area: float) -> _Layer:
    """Of a layer that has keys and values of all tokens of ``row``, and all else of ``asked`` of them, seeing ``area`` pairs."""
    linear = adapters = 0.0
    for matrix in a.linears:
        tokens = row.tokens if matrix.name in ("k_proj", "v_proj") else asked
        linear += 2 * tokens * matrix.weights
        adapters += 2 * tokens * tuning.adapter(matrix)
    attention = 4 * area * a.heads * a.head_size
    # Backward: attention computes its scores again, and four products of two; a frozen matrix has one product, not two.
    back = linear * (2 if tuning.full else 1) + 2 * adapters + 2.5 * attention
    return _Layer(linear + adapters + attention, linear + attention, back)


def _head_products(tuning: Tuning) -> int:
    """Products of (scored, hidden, vocabulary): two for the policy; of a trained head logits twice and two gradients."""
    return (4 if tuning.full else 2) + tuning.live


def _tower(a: Architecture, row: Row) -> float:
    tower = a.tower
    if tower.tokens:
        tokens = row.crops * tower.tokens
        patches = row.crops * tower.crop_features * tower.patch_features
        seen: list[float] = [tower.tokens] * tower.layers
    else:  # as many patches as the image tokens are made of
        tokens = patches = row.features * tower.patch_features
        whole = patches / max(1.0, row.images)
        seen = [whole] * tower.whole_blocks + [min(whole, tower.window)] * (tower.layers - tower.whole_blocks)
    attention = 4 * tokens * sum(seen) * tower.hidden
    return 2 * tokens * tower.block_linear * tower.layers + attention + 2 * patches * tower.patches_linear


def _projector(a: Architecture, tuning: Tuning, row: Row) -> float:
    """Forward for the policy, for a reference with values of its own, and backward where it learns."""

    def product(linear: Linear) -> float:
        # A merger's linear layers see its image tokens; where crops are of one size, so do all others.
        return 2 * row.features * linear.weights

    forward = sum(map(product, a.projector))
    passes = 1 + (tuning.live and tuning.trains_projector)
    # The first layer's input is the frozen tower's: its gradient is never wanted.
    backward = 2 * forward - product(a.projector[0]) if tuning.trains_projector and a.projector else 0.0
    return passes * forward + backward

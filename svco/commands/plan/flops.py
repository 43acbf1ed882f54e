"""Floating-point operations of a micro-batch, in closed form; 2 a multiply-add.

They are those that are done, recomputation included. Attention counts the whole area a kernel is given, not half of it
where it is causal: that is how kernels are timed, and what torch's counter counts.
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


def flops(a: Architecture, tuning: Tuning, row: Row, recompute: int, last_product_again: bool) -> Flops:
    """The work of ``row`` with ``recompute`` layers computed twice.

    ``last_product_again``: ZeRO-3's linear function saves its input after it has multiplied, so that recomputation repeats a
    layer's last product, which torch's own leaves out.
    """
    if a.delta:
        again = a.delta.among(recompute)
        made = flops(a.attending, tuning, row, recompute - again, last_product_again)
        linear, adapters, rule = delta.layer_flops(a.delta, tuning, row)
        count = len(a.delta.numbers)
        return replace(
            made,
            forward=made.forward + count * (linear + adapters + rule),
            reference=made.reference + count * (linear + rule) * tuning.live,
            recompute=made.recompute + again * (linear + adapters + rule),
            backward=made.backward + count * (linear * (2 if tuning.full else 1) + 2 * adapters + 2 * rule),
        )
    linear = 2 * row.tokens * a.layer_linear
    adapters = 2 * row.tokens * tuning.adapters(a)
    attention = 4 * row.area * a.heads * a.head_size
    layer = linear + adapters + attention
    spared = 0.0 if last_product_again else 2 * row.tokens * _last_product(a, tuning)
    # Backward: attention computes its scores again, and four products of two; a frozen matrix has one product, not two.
    back = linear * (2 if tuning.full else 1) + 2 * adapters + 2.5 * attention
    return Flops(
        forward=a.layers * layer,
        reference=a.layers * (linear + attention) * tuning.live,
        recompute=recompute * (layer - spared),
        backward=a.layers * back,
        head=2 * row.scored * a.embedding * _head_products(tuning),
        vision=_tower(a, row) + _projector(a, tuning, row),
    )


def _last_product(a: Architecture, tuning: Tuning) -> float:
    """Weights of the last matrix in a layer, whose product nothing in the layer's backward pass needs."""
    last = a.linears[-1]
    return tuning.rank * last.outputs if tuning.adapter(last) else last.weights


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

"""Bytes of tensors that a micro-batch makes: what is kept for the backward pass, and the most that is there at once.

Written down from what the operations of a decoder layer save (RMSNorm in float32, rotated queries, gathered keys of a
varlen kernel, SwiGLU, LoRA's inner tensors), and checked against what they do save.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from . import delta
from .architecture import Architecture
from .workload import Row, Tuning

CHUNK_BYTES = 128 * 2**20
"""Float32 logits of one chunk at most: :data:`svco.model.logprobs.CHUNK_BYTES`, which a test compares."""


@dataclass(frozen=True)
class Kernels:
    """How the device computes, where it changes what is in memory."""

    dense: bool = False
    """Attention over dense blocks with a mask (``sdpa``) instead of a varlen kernel over gathered keys."""
    widened_head: bool = False
    """Half-precision products are made in float32 from widened copies, as on a CPU; a GPU accumulates in float32 without."""
    zero3: bool = False
    """ZeRO-3's linear function: it keeps its input even where its weights are frozen."""


@dataclass(frozen=True)
class Gradients:
    """Bytes of gradients that stay where they are made until the step's end; 0 where ZeRO takes them away."""

    layer: float = 0.0
    """Of a decoder layer."""
    last: float = 0.0
    """Of these, what is there first: the last matrix's."""
    head: float = 0.0
    """Of head and final norm."""
    start: float = 0.0
    """Of embedding and projector, which come last."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch's tensors. The first ``recompute`` of ``layers`` layers keep their input alone."""

    layers: int
    """Decoder layers."""
    recompute: int
    """Of these, recomputed."""
    stream: float
    """One stream's hidden states."""
    layer: float
    """What one layer keeps that is not recomputed: what the dial measures."""
    last: float
    """The same of the last layer, which few tokens are asked of."""
    start: float
    """Kept outside the layers until the backward pass ends: rotary angles, what a trained projector needs."""
    scored: float
    """Kept of the scored rows until the backward pass reaches the layers."""
    working: float
    """Beside all that, at the worst moment of a layer's backward pass."""
    working_last: float
    """The same of the last layer's."""
    head: float
    """Beside what is kept, at the worst moment of the log-prob head in the forward pass."""
    head_backward: float
    """The same in the backward pass."""
    vision: float
    """At the worst moment of tower and projector, before the layers run."""

    @property
    def kept(self) -> float:
        """Alive between forward and backward."""
        plain = (self.layers - self.recompute - 1) * self.layer + self.last if self.recompute < self.layers else 0.0
        return self.recompute * self.stream + plain + self.start + self.scored

    def peak(self, gradients: Gradients) -> float:
        """The most bytes at once."""
        return max(self.vision, self.kept + self.head, self.backward_peak(gradients))

    def backward_peak(self, gradients: Gradients) -> float:
        """The most bytes at once in the backward pass."""
        moments = [self.kept + self.head_backward]
        # In the layers it falls or grows steadily, so the ends decide: the last two, last recomputed one, first one.
        for done in {0, min(1, self.layers - 1), min(self.layers - self.recompute, self.layers - 1), self.layers - 1}:
            moments.append(self._at_layer(done) + gradients.layer * done + gradients.last + gradients.head)
        moments.append(gradients.layer * self.layers + gradients.head + gradients.start + self.stream)
        return max(moments)

    def _at_layer(self, done: int) -> float:
        """In the backward pass of a layer when ``done`` layers behind it are through."""
        inputs = min(self.recompute, self.layers - done)
        insides = max(1, self.layers - self.recompute - done)  # a recomputed layer's own are back at least
        ends = self.layer + self.working if done else self.last + self.working_last
        return inputs * self.stream + (insides - 1) * self.layer + ends + self.start


def layer_bytes(a: Architecture, tuning: Tuning, row: Row, kernels: Kernels, last: bool = False) -> float:
    """What one decoder layer keeps for its backward pass when it is not recomputed; ``last``: the last one."""
    b, wide = tuning.weight_bytes, 4
    asked = row.asked if last else row.tokens
    needed = partial(tuning.keeps_input, kernels.zero3)

    # A norm keeps its input in float32 (the input itself, if it is float32) and its inverse root mean square; a trained one
    # also what it scales. Its output is kept by the linear layers behind it.
    def norm(width: float, rows: float = 1) -> float:
        return wide * (width + rows) + b * width * tuning.full

    of_keys, of_queries = (a.head_norms * norm(heads * a.head_size, heads) for heads in (a.groups, a.heads))
    attention = norm(a.hidden) + of_keys + b * a.hidden * needed("q_proj", "k_proj", "v_proj")
    # What gates attention's output: its sigmoid, and the product where o_proj keeps it; in float32 the gate itself, which shares
    # its storage with the queries that their norm keeps.
    gated = b * a.gates * (1 + needed("o_proj") + (a.head_norms and b == wide))
    # In the MLP: gate, its SiLU, up, and their product.
    mlp = (
        (a.hidden_norms - 1) * norm(a.hidden)
        + of_queries
        + gated
        + b * a.hidden * needed("gate_proj", "up_proj")
        + b * a.intermediate * (3 + needed("down_proj"))
    )
    adapted = [linear.name in ("k_proj", "v_proj") for linear in a.linears if tuning.adapts(linear.name)]
    inner = b * tuning.rank * (sum(adapted) * row.tokens + (len(adapted) - sum(adapted)) * asked)
    return row.tokens * attention + asked * mlp + inner + _attention_bytes(a, b, row, kernels, last)


def _attention_bytes(a: Architecture, b: int, row: Row, kernels: Kernels, last: bool) -> float:
    """Queries, keys, values, output and log-sum-exp as the kernel is given them."""
    queries, keys = a.heads * a.head_size, a.groups * a.head_size
    asked, blocks = (row.asked, row.asked_blocks) if last else (row.tokens, row.blocks)
    lse = 4 * a.heads * asked
    if not kernels.dense:
        return b * (2 * queries * asked + 2 * keys * row.keys) + lse
    # Keys and values of all heads, the output in blocks and again in the row's order, and the mask as numbers.
    return b * (queries * (3 * asked + 2 * row.tokens) + blocks) + lse


def activations(a: Architecture, tuning: Tuning, row: Row, recompute: int, kernels: Kernels) -> Activations:
    """The tensors of ``row`` with the first ``recompute`` layers recomputed. Where layers are of two kinds, which alternate, each
    counts as their mean."""
    if a.delta:
        made = activations(a.attending, tuning, row, min(recompute, a.attending.layers), kernels)
        states = delta.layer_bytes(a, a.delta, tuning, row, kernels.zero3)
        share = len(a.delta.numbers) / a.layers
        return replace(
            made,
            layers=a.layers,
            recompute=recompute,
            layer=share * states + (1 - share) * made.layer,
            working=max(made.working, delta.working_bytes(a.delta, tuning, row)),
        )
    b, wide = tuning.weight_bytes, 4
    stream, rows = b * a.hidden * row.tokens, b * a.hidden * row.scored
    start = 2 * b * a.head_size * row.tokens
    if tuning.trains_projector:  # its input, both sides of its activation, and what is placed in the row or added there
        start += b * row.features * sum(linear.inputs + linear.outputs for linear in a.projector)
    if not tuning.full and not recompute and b < 4:
        start += stream  # the first layer's input, of which a gradient is wanted for ZeRO-3's sake
    # Held in 4 bits, the matrix that is multiplied is there whole for that long, with its scales in float32.
    whole = (b + wide / 64) * max(linear.weights for linear in a.every_linear) if tuning.quantised else 0.0
    return Activations(
        layers=a.layers,
        recompute=recompute,
        stream=stream,
        layer=layer_bytes(a, tuning, row, kernels),
        last=layer_bytes(a, tuning, row, kernels, last=True),
        start=start,
        # The final norm's rows in float32 and the head's derivative; of a trained one its input, and what the norm scales.
        scored=4 * a.hidden * row.scored + rows * (2 if tuning.full else 1),
        # In the MLP: the gradients of two inner tensors, and of its output.
        working=b * row.tokens * (2 * a.intermediate + a.hidden) + whole,
        working_last=b * row.asked * (2 * a.intermediate + a.hidden) + whole,
        head=_head(a, tuning, row, kernels),
        head_backward=_trained_head_backward(a, tuning, row, kernels) if tuning.full else 0.0,
        vision=_vision(a, tuning, row),
    )


def _chunk(a: Architecture, row: Row) -> float:
    """Rows whose logits are there at once."""
    return min(row.scored, max(1, CHUNK_BYTES // (4 * a.vocabulary)))


def _head(a: Architecture, tuning: Tuning, row: Row, kernels: Kernels) -> float:
    """Both streams' last hidden states and scored rows, and one chunk: logits, their slope, its product with the head."""
    b, chunk = tuning.weight_bytes, _chunk(a, row)
    logits = 4 * chunk * a.vocabulary
    streams = (1 + tuning.live) * b * a.hidden * (row.asked + row.scored)
    widened = kernels.widened_head and b < 4
    if tuning.full:
        return streams + logits + (4 * (a.embedding + chunk * a.hidden) if widened else 0)
    narrow = logits / 2 if b < 4 else 0
    return streams + logits + narrow + 4 * chunk * a.hidden + (4 * a.embedding + logits if widened else 0)


def _trained_head_backward(a: Architecture, tuning: Tuning, row: Row, kernels: Kernels) -> float:
    """The head's gradient in float32, one chunk's slope, and one chunk's share of the gradient or what is widened for it."""
    b, chunk = tuning.weight_bytes, _chunk(a, row)
    slope = b * chunk * a.vocabulary
    matrix = 4 * a.embedding
    widened = 2 * slope + 4 * chunk * a.hidden if kernels.widened_head and b < 4 else 0
    return 2 * matrix + slope + b * a.hidden * row.scored + widened


def _vision(a: Architecture, tuning: Tuning, row: Row) -> float:
    """The tower: every block's output, and the insides of the MLP that computes. Or the row when it is put together."""
    b, tower = tuning.weight_bytes, a.tower
    tokens = row.crops * tower.tokens if tower.tokens else row.features * tower.patch_features
    encoding = b * tower.hidden * tokens * (tower.layers + 1 + 13)
    placing = (
        b * a.hidden * (row.tokens * (4 if tuning.copied else 2) + row.features * (4 if tuning.trains_projector else 1))
    )
    return max(encoding, placing)

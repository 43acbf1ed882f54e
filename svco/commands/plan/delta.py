"""A gated DeltaNet layer's work and memory: projections, a short convolution, and a state that is read and written in chunks.

Memory is that of flash-linear-attention's kernels, which save their inputs and compute the rest again. transformers' own form,
which runs where those are not installed, keeps about twice as much.
"""

from __future__ import annotations

from functools import partial

from ...batches.forks import CHUNK
from .architecture import Architecture
from .layers import Delta
from .workload import Row, Tuning

_STATES = 4.5
"""States of a layer that are kept, an image: three conditions for two images, each a last state and two branches that begin with
it."""


def layer_flops(delta: Delta, tuning: Tuning, row: Row) -> tuple[float, float, float]:
    """(linear layers, their adapters, convolution and rule), forward, of one layer; 2 a multiply-add."""
    linear = 2 * row.tokens * sum(x.weights for x in delta.linears)
    adapters = 2 * row.tokens * sum(tuning.adapter(x) for x in delta.linears)
    return linear, adapters, row.tokens * (2 * delta.channels * delta.width + delta.value_heads * rule_flops(delta))


def rule_flops(delta: Delta) -> float:
    """Of a head and token: within a chunk keys and queries times keys, a triangular system for new values and keys, queries' own
    values; then the state is read for both and written."""
    k, v = delta.key_size, delta.value_size
    return CHUNK * (2 * k + 2 * k + (k + v) + 2 * v) + 6 * k * v


def layer_bytes(a: Architecture, delta: Delta, tuning: Tuning, row: Row, zero3: bool) -> float:
    """What one layer keeps for its backward pass when it is not recomputed."""
    b, wide, values = tuning.weight_bytes, 4, delta.value_heads * delta.value_size

    needed = partial(tuning.keeps_input, zero3)
    norms = 2 * (wide * a.hidden + wide + b * a.hidden * tuning.full)
    inputs = (
        b * a.hidden * (needed("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b") + needed("gate_proj", "up_proj"))
    )
    # The convolution's input and output, and what the kernel is given: queries, keys, values, decay, weight and its triangles.
    rule = 3 * b * delta.channels + delta.value_heads * (wide + 2 * b + b * CHUNK)
    # The gated norm in float32: its input, the gate and its SiLU; then what it scales, and the input of out_proj.
    gated = 3 * wide * values + b * values * (1 + needed("out_proj"))
    mlp = b * a.intermediate * (3 + needed("down_proj"))
    inner = b * tuning.rank * sum(tuning.adapts(x.name) for x in delta.linears)
    return row.tokens * (norms + inputs + rule + gated + mlp + inner) + wide * delta.state * _STATES * row.images


def working_bytes(delta: Delta, tuning: Tuning, row: Row) -> float:
    """Beside that, at the worst moment of the rule's backward pass: every chunk's state and its gradient, and the gradients of
    what the kernel was given."""
    return tuning.weight_bytes * row.tokens * (2 * delta.state / CHUNK + 2 * delta.channels)


def moved_bytes(a: Architecture, delta: Delta, tuning: Tuning) -> tuple[float, float]:
    """(adapters' sums, everything else): bytes a token that move between one layer's products, eager."""
    b = tuning.weight_bytes
    norms = 2 * (6 * b + 24) * a.hidden
    values = delta.value_heads * delta.value_size
    states = 4 * b * delta.state / CHUNK
    plain = norms + 10 * b * delta.channels + states + (6 * b + 24) * values + 6 * b * a.hidden + 5 * b * a.intermediate
    return tuning.adding * b * sum(x.outputs for x in delta.linears if tuning.adapter(x)), plain

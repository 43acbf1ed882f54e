"""A fused attention kernel's shapes, FLOPs and saved tensors without its values: for counting on the meta device.

There torch's own attention falls to plain matrix products, whose (queries, keys) weights no fused kernel keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from ...batches.layout import Layout
from ...model.last import Others

NAME = "svco_counted"


@torch.library.custom_op("svco_bench::attention", mutates_args=())
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, area: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(output like ``q`` (tokens, H, D), log-sum-exp (tokens, H) float32); ``area``: visible (query, key) pairs of one head."""
    raise RuntimeError("this kernel has shapes only")


@torch.library.custom_op("svco_bench::attention_backward", mutates_args=())
def backward(
    gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, area: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    raise RuntimeError("this kernel has shapes only")


@attention.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, area: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)


@backward.register_fake
def _(
    gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, area: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    q, k, v, ctx.area = inputs
    ctx.save_for_backward(q, k, v, *output)


def _backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    q, k, v, _, _ = ctx.saved_tensors
    return *backward(gradient, q, k, v, ctx.area), None


attention.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.svco_bench.attention)
def _forward_flops(q: torch.Size, k: torch.Size, v: torch.Size, area: int, *rest: Any, **more: Any) -> int:
    """Two matrix products over the area: scores, and output."""
    return 2 * 2 * area * q[1] * q[2]


@register_flop_formula(torch.ops.svco_bench.attention_backward)
def _backward_flops(
    gradient: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, area: int, *rest: Any, **more: Any
) -> int:
    """Five: scores again, and the gradients of v, of the weights, of q and of k."""
    return 5 * 2 * area * q[1] * q[2]


def register() -> str:
    """Makes the kernel known to transformers; its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, counted)
    return NAME


def counted(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    layout: Layout | None = None,
    others: Others | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' layers call it: ``query`` (B, H, L, D), ``key`` and ``value`` (B, G, L, D).

    With a ``layout`` each segment's keys are gathered as the varlen kernels want them; without, B sequences of L tokens, padding
    included, causal where ``module`` says that it is. The area is what is visible: kernels skip the rest.
    """
    if others is not None:
        key, value = others.join(key, value)
    batch, heads, length, size = query.shape
    q, k, v = (x.transpose(1, 2).reshape(-1, x.shape[1], size) for x in (query, key, value))
    if layout is not None:
        k, v = (x.index_select(0, layout.key_index) for x in (k, v))
        area = layout.pairs
    else:
        area = batch * (length * (length + 1) // 2 if module.is_causal else length**2)
    return attention(q, k, v, area)[0].view(batch, length, heads, size), None

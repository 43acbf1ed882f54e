"""Attention over a packed row: one function for transformers' ``AttentionInterface``, three backends behind it.

``flash`` is one call of flash-attn's ``flash_attn_varlen_func``: every segment is a sequence whose queries are its own
tokens and whose keys are gathered, its ancestors' and its own; ``causal=True`` is aligned bottom-right there, which is
just what a branch needs. ``varlen`` is the same call of torch's own kernel. ``sdpa`` runs anywhere and in any dtype: the
trees side by side in padded blocks with a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..basics.errors import UserError, first_line
from ..batches.layout import Layout

BACKENDS = ("flash", "varlen", "sdpa")
Varlen = Callable[..., torch.Tensor]
"""(query (T, H, D), key (K, G, D), value (K, G, D), layout, scale) -> (T, H, D)."""


def choose_backend(wanted: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """(backend, why) for ``wanted``, which is a backend or ``auto``. UserError when it cannot run here."""
    hindered = obstacles(device, dtype)
    if wanted == "auto":
        backend = next(name for name in BACKENDS if not hindered[name])
        passed = [f"no {name}: {hindered[name]}" for name in BACKENDS[: BACKENDS.index(backend)]]
        return backend, "; ".join(passed) or "the fastest, and it is installed"
    if wanted not in BACKENDS:
        raise UserError(f"model.attention is {wanted!r}; known: auto, {', '.join(BACKENDS)}.")
    if hindered[wanted]:
        raise UserError(f"model.attention is {wanted}, which cannot run here: {hindered[wanted]}. Use auto or sdpa.")
    return wanted, "as model.attention asks"


def obstacles(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Backend, best first -> why it cannot run here; empty: it can."""
    return {"flash": _no_flash(device, dtype), "varlen": _no_varlen(device, dtype), "sdpa": ""}


def _no_flash(device: torch.device, dtype: torch.dtype) -> str:
    if reason := _no_kernel(device, dtype):
        return reason
    try:
        flash_call()
    except ImportError as error:  # not installed, or built for another torch
        return f"flash-attn cannot be imported ({first_line(error)})"
    return ""


def _no_varlen(device: torch.device, dtype: torch.dtype) -> str:
    if reason := _no_kernel(device, dtype):
        return reason
    return "" if find_spec("torch.nn.attention.varlen") else f"torch {torch.__version__} does not have it"


def _no_kernel(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"its kernel needs a CUDA GPU, not {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"its kernel computes in bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    major, minor = torch.cuda.get_device_capability(device)
    return "" if major >= 8 else f"its kernel needs compute capability 8.0, the GPU has {major}.{minor}"


def register(backend: str) -> str:
    """Makes ``backend`` known to transformers; the name to use as a model's attention implementation."""
    from transformers import AttentionInterface

    name = attention_name(backend)
    AttentionInterface.register(name, partial(tree_attention, kernel=kernel_of(backend)))
    return name


def attention_name(backend: str) -> str:
    """The name by which transformers knows ``backend`` once it is registered."""
    # What has "flash" in its name transformers takes for a kernel of its own, looks for on its hub and refuses.
    return f"svco_{backend.replace('flash', 'dao')}"


def kernel_of(backend: str) -> Callable[..., torch.Tensor]:
    """(query (1, H, T, D), key and value (1, G, T, D), layout, scale) -> (1, T, H, D) of ``backend``."""
    calls = {"flash": flash_call, "varlen": torch_call}
    return partial(varlen, call=calls[backend]()) if backend in calls else blocked


# The layout's lengths change with every pack: traced, each would be compiled anew.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout,
    kernel: Callable[..., torch.Tensor],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of one layer over a packed row, as transformers' layers call it.

    ``query`` (1, H, T, D), ``key`` and ``value`` (1, G, T, D) with G dividing H (grouped queries); the output is
    (1, T, H, D). ``layout`` comes through the layers' keyword arguments and says everything: there is no other mask.
    """
    if attention_mask is not None:
        raise ValueError("a packed row is attended by its layout; no attention mask may be given")
    return kernel(query, key, value, layout, query.shape[-1] ** -0.5 if scaling is None else scaling), None


def blocked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
    """``scaled_dot_product_attention`` over the layout's padded blocks. Any device and dtype."""
    heads, groups = query.shape[1], key.shape[1]
    blocks, order = layout.blocks
    rows = []
    for block in blocks:
        n, length = block.index.shape
        q, k, v = (
            x[0].index_select(1, block.index.flatten()).view(x.shape[1], n, length, -1).transpose(0, 1)
            for x in (query, key, value)
        )
        if groups != heads:
            k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=block.mask, scale=scale)
        rows.append(attended.transpose(1, 2).reshape(n * length, heads, -1).index_select(0, block.kept))
    return torch.cat(rows).index_select(0, order).unsqueeze(0)


def varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float, call: Varlen
) -> torch.Tensor:
    """One call of a variable-length kernel, each segment's keys gathered: autograd adds up the branches' gradients."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    k, v = (x.index_select(0, layout.key_index) for x in (k, v))
    return call(q.contiguous(), k, v, layout, scale).unsqueeze(0)


def flash_call() -> Varlen:
    """flash-attn's kernel; its ``causal`` is aligned bottom-right since 2.1."""
    from flash_attn import flash_attn_varlen_func

    return partial(_flash, function=flash_attn_varlen_func)


def _flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    scale: float,
    function: Callable[..., torch.Tensor],
) -> torch.Tensor:
    return function(
        q,
        k,
        v,
        cu_seqlens_q=layout.cu_q,
        cu_seqlens_k=layout.cu_k,
        max_seqlen_q=layout.max_q,
        max_seqlen_k=layout.max_k,
        softmax_scale=scale,
        causal=True,
    )


def torch_call(function: Callable[..., Any] | None = None) -> Varlen:
    """torch's kernel in whichever of its two signatures: ``is_causal`` (2.10, 2.11) or ``window_size`` (later)."""
    if function is None:
        from torch.nn.attention.varlen import varlen_attn

        function = varlen_attn
    known = inspect.signature(function).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    return partial(_torch, function=function, known=frozenset(known), causal=causal)


def _torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    scale: float,
    function: Callable[..., Any],
    known: frozenset[str],
    causal: dict[str, Any],
) -> torch.Tensor:
    more = dict(causal)
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in known:
            more["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if "scale" in known:
        more["scale"] = scale
    elif scale != q.shape[-1] ** -0.5:
        q = q * (scale * q.shape[-1] ** 0.5)
    return function(q, k, v, layout.cu_q, layout.cu_k, layout.max_q, layout.max_k, **more)

"""Attention over a packed row: one function for transformers' ``AttentionInterface``, three backends behind it.

``flash`` is one call of flash-attn's ``flash_attn_varlen_func``: every segment is a sequence whose queries are its own
tokens and whose keys are gathered, its ancestors' and its own; ``causal=True`` is aligned bottom-right there, which is
just what a branch needs. Segments whose tokens see each other both ways are a second call, with ``causal=False``. ``varlen`` is
the same of torch's own kernel. ``sdpa`` runs anywhere and in any dtype: the trees side by side in padded blocks with a mask.

A layer's sliding window is over positions on a token's path. A segment's gathered keys are just its path, in order, so that the
kernels' own windows, aligned bottom-right as ``causal`` is, are exact for trees too; a mask says the same. No window is asked
for where no path is longer.
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
from ..batches.layout import Call, Layout
from .last import Others

BACKENDS = ("flash", "varlen", "sdpa")
Varlen = partial[torch.Tensor]
"""(query (T, H, D), key (K, G, D), value (K, G, D), call, scale, window) -> (T, H, D)."""


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
    """(query (1, H, T, D), key and value (1, G, T, D), layout, scale, window) -> (1, T, H, D) of ``backend``."""
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
    sliding_window: int | None = None,
    others: Others | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of one layer over a packed row, as transformers' layers call it.

    ``query`` (1, H, T, D), ``key`` and ``value`` (1, G, T, D) with G dividing H (grouped queries); the output is
    (1, T, H, D). ``layout`` comes through the layers' keyword arguments and says who attends to whom: there is no other mask.
    ``sliding_window``: a token sees no key that stands as many tokens or more before it on its path. In the last layer there are
    ``others``, which have keys and values of the rows that are not here.
    """
    if attention_mask is not None:
        raise ValueError("a packed row is attended by its layout; no attention mask may be given")
    if others is not None:
        key, value = others.join(key, value)
    window = sliding_window if sliding_window and sliding_window < layout.max_k else None
    return kernel(query, key, value, layout, query.shape[-1] ** -0.5 if scaling is None else scaling, window), None


def blocked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` over the layout's padded blocks. Any device and dtype.

    A block's queries attend in strips, each to the keys up to the last that one of them sees: a mask hides keys from a kernel,
    but spares it nothing.
    """
    attend = partial(torch.nn.functional.scaled_dot_product_attention, scale=scale)
    heads, groups = query.shape[1], key.shape[1]
    blocks, order = layout.blocks if window is None else layout.blocks_within(window)
    rows = []
    for block in blocks:
        q, k, v = (_side_by_side(x, i) for x, i in ((query, block.queries), (key, block.keys), (value, block.keys)))
        if groups != heads:
            k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
        for strip in block.strips:
            mine, there = q[:, :, strip.queries], strip.keys
            rows.append(attend(mine, k[:, :, there], v[:, :, there], attn_mask=strip.mask))
    flat = [part.transpose(1, 2).reshape(-1, heads, part.shape[-1]) for part in rows]
    return torch.cat(flat).index_select(0, order).unsqueeze(0)


def _side_by_side(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(n, heads, L, D) of the rows ``index`` (n, L) of ``x`` (1, heads, rows, D)."""
    return x[0].index_select(1, index.flatten()).view(x.shape[1], *index.shape, -1).transpose(0, 1)


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scale: float,
    window: int | None = None,
    *,
    call: Varlen,
) -> torch.Tensor:
    """A call of a variable-length kernel for each kind of segment, every segment's keys gathered: autograd adds up the branches'
    gradients. A kernel without windows is not asked for one: there a mask says it."""
    if window is not None and not call.keywords.get("windows", True):
        return blocked(query, key, value, layout, scale, window)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    made = []
    for part in layout.calls or (layout,):
        own = q.contiguous() if part.places is None else q.index_select(0, part.places)
        made.append(call(own, *(x.index_select(0, part.key_index) for x in (k, v)), part, scale, window))
    attended = made[0] if layout.order is None else torch.cat(made).index_select(0, layout.order)
    return attended.unsqueeze(0)


def flash_call() -> Varlen:
    """flash-attn's kernel; its ``causal`` is aligned bottom-right since 2.1, and so are its windows, since 2.3."""
    from flash_attn import flash_attn_varlen_func

    return partial(_flash, function=flash_attn_varlen_func)


def _flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    part: Call,
    scale: float,
    window: int | None,
    function: Callable[..., torch.Tensor],
) -> torch.Tensor:
    return function(
        q,
        k,
        v,
        cu_seqlens_q=part.cu_q,
        cu_seqlens_k=part.cu_k,
        max_seqlen_q=part.max_q,
        max_seqlen_k=part.max_k,
        softmax_scale=scale,
        causal=part.causal,
        **({} if window is None else {"window_size": _bounds(part, window)}),
    )


def _bounds(part: Call, window: int | None) -> tuple[int, int]:
    """The keys that a query sees before and behind its own, which is not counted; -1: all."""
    return -1 if window is None else window - 1, 0 if part.causal else -1


def torch_call(function: Callable[..., Any] | None = None) -> Varlen:
    """torch's kernel in whichever of its two signatures: ``is_causal`` (2.10, 2.11) or ``window_size`` (later)."""
    if function is None:
        from torch.nn.attention.varlen import varlen_attn

        function = varlen_attn
    known = frozenset(inspect.signature(function).parameters)
    return partial(_torch, function=function, known=known, windows="window_size" in known)


def _torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    part: Call,
    scale: float,
    window: int | None,
    function: Callable[..., Any],
    known: frozenset[str],
    windows: bool,
) -> torch.Tensor:
    more: dict[str, Any] = {"window_size": _bounds(part, window)} if windows else {"is_causal": part.causal}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in known:
            more["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if "scale" in known:
        more["scale"] = scale
    elif scale != q.shape[-1] ** -0.5:
        q = q * (scale * q.shape[-1] ** 0.5)
    return function(q, k, v, part.cu_q, part.cu_k, part.max_q, part.max_k, **more)

"""Qwen3.5's gated DeltaNet layers over a packed row: their convolution and their state fork where the branches do.

Transformers' layer knows sequences alone: over a packed row a pair's state would flow into the next pair, without an error. The
class of a loaded model's DeltaNet modules is therefore changed, of the objects and not of the package, to one that reads the
row's layout; its parameters, their names and everything else stay. Without a layout it is transformers' layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import pad, softplus
from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs

from ..basics.errors import UserError
from .protocol import HfModel

Rule = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
"""The gated delta rule in chunks: (query, key, value (B, L, heads, size), g, beta (B, L, heads)) -> (output, last states)."""


class ForkedDeltaNet(theirs.Qwen3_5GatedDeltaNet):
    """``Qwen3_5GatedDeltaNet`` that takes a packed row's ``layout``, as the attention does."""

    def forward(self, hidden_states: torch.Tensor, layout: Any = None, **more: Any) -> torch.Tensor:
        """(1, T, hidden) -> (1, T, hidden). ``layout``: the :class:`~svco.batches.layout.Layout` of the row; None: a batch of
        sequences, which transformers runs, cache and all."""
        if layout is None:
            return super().forward(hidden_states, **more)
        if any(more.get(name) is not None for name in ("attention_mask", "cache_params")):
            raise ValueError("a packed row forks by its layout; no attention mask and no cache may be given")
        tokens = hidden_states.shape[1]
        # As transformers' forward: at least float32, or exp(A) of a half-precision model could be infinite.
        a, rate = self.in_proj_a(hidden_states), self.A_log
        wide = torch.promote_types(torch.float32, rate.dtype)
        g = -rate.to(wide).exp() * softplus(a.to(wide) + self.dt_bias)
        mixed = forked(
            self.in_proj_qkv(hidden_states),
            g,
            self.in_proj_b(hidden_states).sigmoid(),
            self.conv1d.weight.squeeze(1),
            self.activation,
            (self.num_k_heads, self.head_k_dim, self.num_v_heads, self.head_v_dim),
            layout,
        )
        z = self.in_proj_z(hidden_states)
        normed = self.norm(mixed.reshape(-1, self.head_v_dim), z.reshape(-1, self.head_v_dim))
        return self.out_proj(normed.reshape(1, tokens, -1))


def fork(layers: Iterable[HfModel]) -> None:
    """Makes the DeltaNet module of every decoder layer that has one a :class:`ForkedDeltaNet`, in place. UserError for one of
    another class: nothing would fork its state, and pairs would leak into each other."""
    for number, layer in enumerate(layers):
        module = getattr(layer, "linear_attn", None)
        if type(module) is theirs.Qwen3_5GatedDeltaNet:
            module.__class__ = ForkedDeltaNet
        elif module is not None and not isinstance(module, ForkedDeltaNet):
            raise UserError(
                f"Layer {number} of the base model is a {type(module).__name__}, whose state svco cannot fork where responses "
                "branch off: pairs would change each other's scores. svco knows the layers of transformers' qwen3_5."
            )


# The layout's lengths change with every pack: traced, each would be compiled anew.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def forked(
    mixed: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    weight: torch.Tensor,
    activation: str,
    heads: tuple[int, int, int, int],
    layout: Any,
) -> torch.Tensor:
    """(1, T, value heads, size): convolution and rule over a packed row, level by level.

    ``mixed`` (1, T, queries + keys + values), ``g`` (log decay) and ``beta`` (1, T, value heads), ``weight`` (channels, width)
    of the convolution; ``heads``: key heads, their size, value heads, their size.
    """
    forks = layout.forks(weight.shape[-1])
    key_heads, key_size, value_heads, value_size = heads
    keys = key_heads * key_size
    # A place of zeros behind the row is what stands before a root.
    long = pad(mixed[0], (0, 0, 0, 1)).index_select(0, forks.tails)
    convolve = _for(theirs.causal_conv1d_fn, mixed.device)
    row = convolve(long.t().unsqueeze(0), weight, None, activation=activation)[0].t().index_select(0, forks.kept)
    query, key, value = row.split([keys, keys, value_heads * value_size], dim=-1)
    parts = (
        query.unflatten(-1, (key_heads, key_size)),
        key.unflatten(-1, (key_heads, key_size)),
        value.unflatten(-1, (value_heads, value_size)),
        g[0],
        beta[0],
    )
    packed = packed_rule(mixed.device)
    states: torch.Tensor | None = None
    outputs = []
    for level in forks.levels:
        begin = None if level.parents is None or states is None else states.index_select(0, level.parents)
        output, states = _packed(packed, parts, level, begin) if packed else _padded(parts, level, begin)
        outputs.append(output)
    return torch.cat(outputs).index_select(0, forks.order).unsqueeze(0)


def _padded(parts: Any, level: Any, begin: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One level by transformers' own form of the rule, which takes sequences of one length: (tokens, heads, size), and the
    segments' last states. Padding has neither decay nor weight, so that it leaves the state as it is."""
    rule = inspect.unwrap(theirs.torch_chunk_gated_delta_rule)
    outputs, states = [], []
    for side in level.sides:
        count, length = side.index.shape
        query, key, value, g, beta = (
            part.index_select(0, side.index.flatten()).unflatten(0, (count, length)) for part in parts
        )
        padding = ~side.real.unsqueeze(-1)
        output, last = rule(
            query,
            key,
            value,
            g=g.masked_fill(padding, 0),
            beta=beta.masked_fill(padding, 0),
            initial_state=None if begin is None else begin[side.first : side.first + count],
            output_final_state=level.ends,
            use_qk_l2norm_in_kernel=True,
        )
        outputs.append(output.flatten(0, 1).index_select(0, side.kept))
        states.append(last)
    return torch.cat(outputs), torch.cat(states) if level.ends else None


def _packed(rule: Rule, parts: Any, level: Any, begin: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same by one call of a kernel that takes sequences of any lengths, one behind another."""
    query, key, value, g, beta = (part.index_select(0, level.index).unsqueeze(0) for part in parts)
    output, last = rule(
        query,
        key,
        value,
        g=g,
        beta=beta,
        initial_state=begin,
        output_final_state=level.ends,
        use_qk_l2norm_in_kernel=True,
        cu_seqlens=level.bounds,
        cu_seqlens_cpu=level.host_bounds,
    )
    return output[0], last


def packed_rule(device: torch.device) -> Rule | None:
    """fla's kernel for ``device``; None where it is not installed, and on a CPU, where it cannot run."""
    return _fla() if device.type == "cuda" else None


@lru_cache(maxsize=1)
def _fla() -> Rule | None:
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    except Exception:  # not installed, or no Triton for it here: transformers asks in the same way
        return None
    return chunk_gated_delta_rule


def _for(function: Any, device: torch.device) -> Any:
    """transformers' ``function``, a package's kernel where that is installed; on a CPU, where none runs, its own form."""
    return function if device.type == "cuda" else inspect.unwrap(function)

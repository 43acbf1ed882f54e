"""The last decoder layer for the rows whose output somebody reads, with keys and values of every row.

Nothing of a layer is written again: wanted rows go through the layer as it is, all others through a copy of it that has no
queries and ends where attention would begin. What a row gives depends on others through their keys and values alone, so the
wanted rows come out as if the whole row had gone through.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..batches.layout import Tail


class LastLayer(nn.Module):
    """``layer`` (1, T, hidden) -> (1, T, hidden), or with a ``tail`` of N rows -> (1, N, hidden). One module around it, so that
    ZeRO-3 gathers its weights once for all rows."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor, *, tail: Tail | None = None, **arguments: Any) -> torch.Tensor:
        if tail is None:
            return self.layer(hidden, **arguments)
        angles = arguments.pop("position_embeddings")
        kept, turned = ([x.index_select(-2, rows) for x in angles] for rows in (tail.rest, tail.rows))
        others = Others(tail.order)
        try:
            without_queries(self.layer).forward(
                hidden.index_select(1, tail.rest), position_embeddings=tuple(kept), **arguments | {"others": others}
            )
        except Taken:
            pass
        else:
            raise RuntimeError(f"{type(self.layer).__name__} did not come to its attention")
        more = arguments | {"layout": tail.layout, "others": others}
        return self.layer(hidden.index_select(1, tail.rows), position_embeddings=tuple(turned), **more)


class Taken(Exception):
    """Keys and values are known: the rest of the layer is for rows whose output is wanted."""


@dataclass
class Others:
    """Keys and values of the rows whose output is not wanted; what attention functions are given as ``others``."""

    order: torch.Tensor
    """(T,) int64: ``Tail.order``."""
    found: tuple[torch.Tensor, torch.Tensor] | None = None
    """(1, G, T - N, D) each, once taken."""

    def join(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, G, T, D) keys and values of the whole row from those of the wanted ones. Asked for the first time it takes those of
        the others instead, and raises Taken."""
        if self.found is None:
            self.found = key, value
            raise Taken
        theirs = self.found
        key, value = (
            torch.cat([x, y], 2).index_select(2, self.order) for x, y in zip(theirs, (key, value), strict=True)
        )
        return key, value


def narrows(layer: nn.Module) -> bool:
    """Whether ``layer`` has an attention whose queries are a linear layer of their own; what has not runs whole."""
    attention = getattr(layer, "self_attn", None)
    return isinstance(attention, nn.Module) and hasattr(getattr(attention, "q_proj", None), "out_features")


def without_queries(layer: nn.Module) -> nn.Module:
    """A shallow copy of ``layer``, with the same weights, whose queries are zeros. Made when it is needed: whatever has been put
    around or into its modules is in it."""
    attention: Any = layer.self_attn
    blank = copy.copy(attention)
    blank._modules = {**attention._modules, "q_proj": _Zeros(attention.q_proj.out_features)}
    narrowed = copy.copy(layer)
    narrowed._modules = {**layer._modules, "self_attn": blank}
    return narrowed


class _Zeros(nn.Module):
    """(…, anything) -> (…, width) of zeros, without a product and without memory of their own."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self.width)

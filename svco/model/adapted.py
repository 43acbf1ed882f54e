"""A frozen linear layer and its LoRA as one product: what autograd makes of it has two passes over the output less in each
direction, and a layer that is computed again for its backward pass stops before a product that nobody reads.

torch's checkpoint ends a recomputation when all is saved again that the first pass had saved. What a layer's last matrix gives is
of no use there: its backward pass needs what goes in. Of an ordinary operation the inputs are saved before it is computed, but of
an ``autograd.Function`` (DeepSpeed's linear layer under ZeRO-3 is one) afterwards; and in peft's order, base first and adapter
behind it, the adapter's inputs are saved when the base's product is done. So here derivative and value are two functions: the
first saves, the second computes.

Imported when adapters are made, behind ``import_peft``.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.autograd.function import once_differentiable


class AdaptedLinear(Linear):
    """peft's LoRA of a linear layer, computed as one product where it is plain LoRA."""

    joined: bool = True
    """Compute as one product, or as peft does."""

    def forward(self, x: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        """(…, out) of ``x`` (…, in)."""
        if more or named or not self._is_plain(x):
            return super().forward(x, *more, **named)
        (name,) = self.active_adapters
        a: Any = self.lora_A[name]
        b: Any = self.lora_B[name]
        return adapted(x, self.base_layer, a.weight, b.weight, self.scaling[name])

    def _is_plain(self, x: torch.Tensor) -> bool:
        names, base, kind = self.active_adapters, self.base_layer, x.device.type
        return (
            self.joined
            and not self.disable_adapters
            and not self.merged_adapters
            and len(names) == 1
            and names[0] in self.lora_A
            and names[0] not in self.lora_variant
            and not self.lora_bias[names[0]]
            and not (self.training and not isinstance(self.lora_dropout[names[0]], nn.Identity))
            and not any(p.requires_grad for p in base.parameters())
            and x.dim() > 1
            and x.dtype == base.weight.dtype == self.lora_A[names[0]].weight.dtype
            and not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind))
            and not torch.compiler.is_compiling()  # which fuses by itself, and traces what it knows
        )


def adapted(x: torch.Tensor, base: nn.Module, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """``base(x) + scale · x Aᵀ Bᵀ``: (…, out) of ``x`` (…, in), ``a`` (rank, in), ``b`` (out, rank), all of one dtype.

    ``base`` is a linear layer whose parameters are frozen. Its weight and the adapter's are saved for the backward pass as they
    are, as parameters: where ZeRO-3 has taken them away they are looked at when they are back.
    """
    stand_in, low = _Derivative.apply(x, base.weight, a, b, scale)
    return _Value.apply(stand_in, x.detach(), base, low, b.detach(), scale)


class _Derivative(torch.autograd.Function):
    """Has the derivative of the output, and a tensor of its shape that has no values and takes no memory."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        low = x.flatten(0, -2) @ a.t()
        ctx.save_for_backward(x, low, weight, a, b)
        ctx.scale = scale
        ctx.mark_non_differentiable(low)
        ctx.set_materialize_grads(False)
        return x.new_zeros(()).expand(*x.shape[:-1], len(b)), low

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
        x, low, weight, a, b = ctx.saved_tensors
        rows = slope.flatten(0, -2)
        toward = (rows @ b).mul_(ctx.scale)  # (rows, rank)
        into: list[torch.Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            both = rows @ weight
            into[0] = torch.addmm(both, toward, a, out=both).view(x.shape)
        if ctx.needs_input_grad[2]:
            into[1] = toward.t() @ x.flatten(0, -2)
        if ctx.needs_input_grad[3]:
            into[2] = rows.t() @ (low * ctx.scale)
        return into[0], None, into[1], into[2], None


class _Value(torch.autograd.Function):
    """Computes the output; its derivative is another's."""

    @staticmethod
    def forward(
        ctx: Any,
        stand_in: torch.Tensor,
        x: torch.Tensor,
        base: nn.Module,
        low: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        value: torch.Tensor = base(x)
        rows = value.view(-1, len(b))
        torch.addmm(rows, low, b.t(), alpha=scale, out=rows)  # an ``addmm_`` that torch counts the operations of
        return torch.ops.aten._unsafe_view(
            rows, value.shape
        )  # no view to autograd, which would not let it be changed in place

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return slope, None, None, None, None, None

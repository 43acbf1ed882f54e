"""Log-probabilities of tokens without logits: the language-model head in chunks of rows.

With a frozen head the derivative d logp / d hidden = W[token] − softmax(W·hidden)·W is known in the forward pass, so log-prob
and derivative are computed together and only the (tokens, hidden) derivative is kept: backward is one multiplication, the head is
not needed again. With a trained head each chunk's logits are computed again in the backward pass. Either way no
(tokens, vocabulary) tensor is larger than one chunk, and the log-sum-exp is in float32 at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

CHUNK_BYTES = 128 * 2**20
"""Size of one chunk of float32 logits."""


def chunks(rows: int, vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Row slices whose float32 logits are at most ``chunk_bytes`` (one row at least)."""
    step = max(1, chunk_bytes // (4 * vocabulary))
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


class ChunkedHead(nn.Module):
    """A language-model head that says log-probabilities of given tokens. Declared a ZeRO-3 leaf: its weight is gathered when
    the module runs, and never read outside of it."""

    def __init__(self, head: nn.Linear, chunk_bytes: int = CHUNK_BYTES):
        super().__init__()
        if getattr(head, "bias", None) is not None:
            raise ValueError("a language-model head with a bias is not supported")
        self.head = head
        self.chunk_bytes = chunk_bytes


class LogProbHead(ChunkedHead):
    """A head that is frozen: ``attach`` makes what it says differentiable."""

    def forward(
        self, targets: torch.Tensor, *streams: torch.Tensor, derivative: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(direction, log-probabilities) after streams of hidden states (R, hidden) each.

        The log-probabilities are those of ``targets``, (R,) float32 or float64, one tensor a stream. The direction is the first
        stream's d logp / d hidden (R, hidden) in its dtype, or an empty tensor without ``derivative``. Neither has gradients:
        see ``attach``.
        """
        first, *others = streams
        with torch.no_grad():
            weight = self.head.weight
            logps, direction = _logps(first, weight, targets, self.chunk_bytes, derivative)
            rest = [_logps(other, weight, targets, self.chunk_bytes, False)[0] for other in others]
        return direction, (logps, *rest)


class TrainedLogProbHead(ChunkedHead):
    """A head that learns: gradients reach hidden states and weight."""

    def forward(self, targets: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (R,) of ``targets`` after hidden states (R, hidden)."""
        return _Recomputed.apply(hidden, self.head.weight, targets, self.chunk_bytes)


def attach(hidden: torch.Tensor, logps: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """``logps`` (R,) as a function of ``hidden`` (R, hidden) with derivative ``direction`` (R, hidden)."""
    return _Attached.apply(hidden, logps, direction)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, logps: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(direction)
        return logps.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (direction,) = ctx.saved_tensors
        return (gradient.unsqueeze(1) * direction).to(direction.dtype), None, None


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk_bytes: int
    ) -> torch.Tensor:
        ctx.chunk_bytes = chunk_bytes
        ctx.save_for_backward(hidden, weight, targets)
        return _logps(hidden, weight, targets, chunk_bytes, False)[0]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        hidden_gradient = torch.empty_like(hidden)
        exact = _exact(weight.dtype)
        weight_gradient = torch.zeros(weight.shape, dtype=exact, device=weight.device)
        for rows in chunks(len(hidden), len(weight), ctx.chunk_bytes):
            _, slope = _logps_and_slope(_logits(hidden[rows], weight), targets[rows])
            slope = slope.mul_(gradient[rows].unsqueeze(1)).to(weight.dtype)
            hidden_gradient[rows] = _product(slope, weight)
            weight_gradient += _product(slope.t(), hidden[rows])
        return hidden_gradient, weight_gradient.to(weight.dtype), None, None


def _logps(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk_bytes: int, derivative: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities (R,), their derivatives (R, hidden) or an empty tensor)."""
    logps = torch.empty(len(hidden), dtype=_exact(hidden.dtype), device=hidden.device)
    direction = torch.empty_like(hidden) if derivative else hidden.new_empty(0)
    for rows in chunks(len(hidden), len(weight), chunk_bytes):
        logits = _logits(hidden[rows], weight)
        if not derivative:
            logps[rows] = logits.gather(1, targets[rows].unsqueeze(1)).squeeze(1) - logits.logsumexp(-1)
            continue
        logps[rows], slope = _logps_and_slope(logits, targets[rows])
        direction[rows] = _product(slope.to(weight.dtype), weight)
    return logps, direction


def _logps_and_slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities (r,), d logp / d logits = onehot − softmax (r, vocabulary)); overwrites ``logits``.

    The one is subtracted before any rounding to the weights' dtype: a token of probability 0.99 keeps its 0.01.
    """
    places = targets.unsqueeze(1)
    normaliser = logits.logsumexp(-1, keepdim=True)
    logps = logits.gather(1, places) - normaliser
    slope = logits.sub_(normaliser).exp_().neg_()
    slope.scatter_add_(1, places, torch.ones_like(logps))
    return logps.squeeze(1), slope


def _logits(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _product(hidden, weight.t())


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b, multiplied as they are, accumulated and returned in float32 at least."""
    exact = _exact(a.dtype)
    if a.device.type == "cuda" and a.dtype != exact:
        return torch.mm(a, b, out_dtype=exact)
    return a.to(exact) @ b.to(exact)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, or float32 where that is more exact."""
    return torch.promote_types(dtype, torch.float32)

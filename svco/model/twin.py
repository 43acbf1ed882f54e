"""Policy and reference layer by layer on one gather of the weights.

Under ZeRO-3 every forward pass gathers every weight. Where both streams use the same weights a ``TwinLayer`` is a ZeRO-3
leaf: they are gathered once for both streams in the forward pass, and once more for recomputation and backward together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Stream = torch.Tensor | None
"""Hidden states (1, T, hidden) of the reference; None: it does not run."""


class TwinLayer(nn.Module):
    """A decoder layer for two streams: ``(policy, reference) -> (policy, reference)``.

    The reference's layer is ``reference``, a frozen copy, or ``layer`` itself inside ``adapters_off()``. It never has gradients.
    """

    recompute: bool = False
    """Keep the policy's input alone and compute the layer again in the backward pass."""

    def __init__(
        self,
        layer: nn.Module,
        reference: nn.Module | None = None,
        adapters_off: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        super().__init__()
        self.layer = layer
        self.reference = reference
        self.adapters_off = adapters_off
        # Recomputing with the same random numbers is slow, and needed only where there is dropout.
        self.keep_rng = any(isinstance(m, nn.Dropout) and m.p > 0 for m in layer.modules())

    def forward(self, policy: torch.Tensor, reference: Stream, **arguments: Any) -> tuple[torch.Tensor, Stream]:
        """``arguments`` go to both layers: position embeddings, layout."""
        if reference is not None:
            with torch.no_grad():
                reference = self._reference(reference, **arguments)
        return self._policy(policy, **arguments), reference

    def _reference(self, hidden: torch.Tensor, **arguments: Any) -> torch.Tensor:
        if self.reference is not None:
            return self.reference(hidden, **arguments)
        with self.adapters_off():
            return self.layer(hidden, **arguments)

    def _policy(self, hidden: torch.Tensor, **arguments: Any) -> torch.Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.layer, hidden, use_reentrant=False, preserve_rng_state=self.keep_rng, **arguments)
        return self.layer(hidden, **arguments)


class SavedBytes:
    """Measures, once, what a layer of each kind keeps for its backward pass when it is not recomputed.

    A kind is what parameters a layer has: models may mix layers that attend with layers that carry a state.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self.wanted = False
        """Measure in the next forward pass with gradients."""
        self._kinds = [tuple(name for name, _ in layer.named_parameters()) for layer in layers]
        # The last of each kind; of the very last few rows are asked, so it is one only where it is alone of its kind.
        self._chosen = {self._kinds[-1]: len(layers) - 1} | {kind: n for n, kind in enumerate(self._kinds[:-1])}
        self._kept: dict[tuple[str, ...], float] = {}

    @property
    def per_layer(self) -> list[float] | None:
        """Bytes a token of each layer that is not recomputed; None until measured."""
        return [self._kept[kind] for kind in self._kinds] if self._kept.keys() == self._chosen.keys() else None

    @property
    def per_token(self) -> float | None:
        """The same of an average layer."""
        return None if self.per_layer is None else sum(self.per_layer) / len(self.per_layer)

    @contextmanager
    def counting(self, layer: TwinLayer, number: int, tokens: int) -> Iterator[None]:
        """Around each layer of a forward pass over ``tokens`` tokens; of each kind the last is measured of
        which all rows are asked."""
        kind = self._kinds[number]
        if not (self.wanted and number == self._chosen[kind] and torch.is_grad_enabled()):
            yield
            return
        kept: dict[int, int] = {}  # address of a storage -> its bytes: what shares a storage counts once

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            # Asked anew each time: ZeRO-3 gathers the weights into new storages only when the layer runs.
            weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        recompute, layer.recompute = layer.recompute, False
        try:
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                yield
        finally:
            layer.recompute = recompute
        self._kept[kind] = sum(kept.values()) / tokens
        self.wanted = self.per_layer is None

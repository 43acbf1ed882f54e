"""The root module: a packed batch in, policy's and reference's scores out, in one forward pass.

vision tower (once an image) -> projector -> embeddings -> twin layers -> final norm -> log-prob head. What a family adds to the
first layers' outputs at an image's places (DeepStack) is added between the twin layers, to each stream its own. Only rows that
predict a scored token are asked for queries and MLP of the last layer (:mod:`.last`), and reach norm and head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..basics.views import Scores
from ..batches.layout import Tail
from ..batches.pack import PackedBatch
from ..families import ModelSide, Parts
from .last import LastLayer, narrows
from .logprobs import ChunkedHead, LogProbHead, TrainedLogProbHead, attach
from .twin import SavedBytes, Stream, TwinLayer

Added = list[torch.Tensor]
"""What is still to be added at the images' places behind the next decoder layers, each (features of all images, hidden)."""


@dataclass(frozen=True)
class Reference:
    """Where the reference stream comes from."""

    model: nn.Module | None = None
    """A frozen copy of the model, without its tower; or None."""
    shared: bool = False
    """Without a copy: run the policy itself with its adapters off. Neither: no stream, the batch brings its log-probs."""


class PackedScorer(nn.Module):
    """``scorer(batch) -> (policy Scores, reference Scores)``, what the engine wraps.

    Every module of the model is a child of this one exactly once, in the order in which it runs, and a decoder layer
    only inside its ``TwinLayer``: ZeRO-3 hangs its hooks on the tree it sees. The Hugging Face models themselves are no
    children. ``switch(module)`` gives the context manager that turns off the adapters inside ``module``.
    """

    def __init__(
        self,
        family: ModelSide,
        policy: nn.Module,
        reference: Reference,
        switch: Callable[[nn.Module], Callable[[], AbstractContextManager[Any]]],
    ):
        super().__init__()
        self.family = family
        parts = family.parts(policy)
        copy = None if reference.model is None else family.parts(reference.model)
        self._parts = parts
        self.shared = reference.shared
        self.tower = parts.tower
        self.projector = parts.projector
        self.embedding = parts.embedding
        self.rotary = parts.rotary
        ours, theirs = _layers(parts), _layers(copy) if copy else [None] * len(parts.layers)
        twins: Any = nn.ModuleList(
            TwinLayer(layer, frozen, switch(layer)) for layer, frozen in zip(ours, theirs, strict=True)
        )
        self.layers: Sequence[TwinLayer] = twins  # nn.ModuleList forgets the class of its modules
        self.norm = parts.norm
        trained = parts.head.weight.requires_grad
        self.head = TrainedLogProbHead(parts.head) if trained else LogProbHead(parts.head)
        self.copy = _FrozenEnds(copy) if copy else None
        self._projector_off = switch(parts.projector)
        self._projector_trained = any(p.requires_grad for p in parts.projector.parameters())
        self._everything_off = switch(policy)
        self.narrows = isinstance(ours[-1], LastLayer)
        self.saved = SavedBytes(parts.layers)
        self._heard: list[torch.Tensor] | None = None

    @property
    def leaves(self) -> list[type[nn.Module]]:
        """Classes whose weights ZeRO-3 should gather together: twin layers, heads, the tower's layers. A frozen copy's layers are
        leaves of their own, like the policy's: a twin of both would gather the copy again in the backward pass, for nothing."""
        blocks = {type(m) for parent in self.tower.modules() if isinstance(parent, nn.ModuleList) for m in parent}
        decoder = {type(twin.layer) for twin in self.layers} if self.copy else {TwinLayer}
        by_name = [sorted(found, key=lambda kind: kind.__name__) for found in (decoder, blocks)]
        return [*by_name[0], ChunkedHead, *by_name[1]]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Inside, the policy stream is the reference's: adapters off, no second stream."""
        shared, self.shared = self.shared, False
        try:
            with self._everything_off():
                yield
        finally:
            self.shared = shared

    @contextmanager
    def hearing_gradients(self) -> Iterator[list[torch.Tensor]]:
        """Inside, a backward pass adds to the list, for the output of every decoder layer from the last to the first and for the
        embeddings, what the gradient is at each row position: (T,) int8, 0 finite, 1 infinite, 2 NaN."""
        self._heard = []
        try:
            yield self._heard
        finally:
            self._heard = None

    def _hear(self, hidden: torch.Tensor, tail: Tail | None = None) -> None:
        heard = self._heard
        if heard is None or not hidden.requires_grad:
            return

        def hear(grad: torch.Tensor) -> None:
            flags = (grad.isnan() * 2 + grad.isinf()).amax(-1).flatten().to(torch.int8)
            heard.append(flags if tail is None else flags.new_zeros(len(tail.order)).index_copy(0, tail.rows, flags))

        hidden.register_hook(hear)

    def forward(self, batch: PackedBatch) -> tuple[Scores, Scores]:
        policy_logps, reference_logps = self._streams(batch)
        scores = self._scores(policy_logps, batch)
        if reference_logps is not None:
            return scores, self._scores(reference_logps, batch)
        stored = batch.reference_logps
        return scores, Scores(torch.zeros_like(scores.logps) if stored is None else stored, batch.tokens)

    def token_logps(self, batch: PackedBatch) -> torch.Tensor:
        """(R,) log-probabilities by the policy, nats, of the scored tokens ``batch.targets``: what ``forward`` sums by
        ``batch.cell``. For a whole model on this rank: the hooks by which ZeRO-3 gathers weights go by ``forward``."""
        return self._streams(batch)[0]

    def _streams(self, batch: PackedBatch) -> tuple[torch.Tensor, Stream]:
        """(R,) log-probabilities of the scored tokens by policy and reference."""
        policy, reference, ours, theirs = self._embed(batch)
        self._hear(policy)
        # (axes, 1, T): most families rotate by one position a token, given as (1, T).
        positions = batch.position_ids if len(batch.position_ids) > 1 else batch.position_ids[0]
        kinds: list[tuple[str, ...]] = [(kind,) for kind in self._parts.layer_types] or [()] * len(self.layers)
        angles = {kind: self.rotary(policy, positions, *kind) for kind in dict.fromkeys(kinds)}
        # Behind the last layer nothing may be added to a few rows as if they were all.
        tail = batch.tail if self.narrows and len(ours) < len(self.layers) else None
        for number, (layer, kind) in enumerate(zip(self.layers, kinds, strict=True)):
            asked = tail if number == len(self.layers) - 1 else None
            more: dict[str, Any] = {} if asked is None else {"tail": asked}
            with self.saved.counting(layer, number, batch.llm_tokens):
                policy, reference = layer(
                    policy, reference, position_embeddings=angles[kind], layout=batch.layout, **more
                )
            policy = _add(policy, ours, batch.image_slots)
            reference = _add(reference, theirs, batch.image_slots)
            self._hear(policy, asked)
        return self._logps(policy, reference, batch.targets, batch.predicts if tail is None else tail.predicts)

    def _embed(self, batch: PackedBatch) -> tuple[torch.Tensor, Stream, Added, Added]:
        """(1, T, hidden) of both streams, and what is added to each. Each image is encoded once, whoever looks at it."""
        with torch.no_grad():
            encoded = self.family.encode_images(self._parts, batch.pixels, batch.grids)
        text = self.embedding(batch.input_ids)
        policy, ours = _place(text, self.family.project(self._parts, encoded, batch.grids), batch.image_slots)
        reference: Stream = None
        theirs: Added = []
        with torch.no_grad():
            if self.copy is not None:
                features = self.family.project(self.copy.parts, encoded, batch.grids)
                reference, theirs = _place(self.copy.embedding(batch.input_ids), features, batch.image_slots)
            elif self.shared and self._projector_trained:
                with self._projector_off():
                    features = self.family.project(self._parts, encoded, batch.grids)
                    reference, theirs = _place(text.detach(), features, batch.image_slots)
            elif self.shared:
                reference, theirs = policy.detach(), [*ours]
        if torch.is_grad_enabled() and not policy.requires_grad:
            # A ZeRO-3 leaf whose input needs no gradient runs its backward hook too early.
            policy.requires_grad_()
        return policy, reference, ours, theirs

    def _logps(
        self, policy: torch.Tensor, reference: Stream, targets: torch.Tensor, predicts: torch.Tensor
    ) -> tuple[torch.Tensor, Stream]:
        """(R,) log-probabilities by both of ``targets`` (R,), which the rows ``predicts`` (R,) predict."""
        ours, theirs = self.norm(policy[0].index_select(0, predicts)), None
        if reference is not None:
            norm = self.copy.norm if self.copy else self.norm
            with torch.no_grad():
                theirs = norm(reference[0].index_select(0, predicts))
        if isinstance(self.head, TrainedLogProbHead):
            logps = self.head(targets, ours)
            if self.copy is not None and theirs is not None:
                _, (theirs,) = self.copy.head(targets, theirs, derivative=False)
            return logps, theirs
        streams = [ours.detach()] if theirs is None else [ours.detach(), theirs]
        learning = torch.is_grad_enabled()
        direction, (logps, *others) = self.head(targets, *streams, derivative=learning)
        if learning:
            logps = attach(ours, logps, direction)
        return logps, others[0] if others else None

    def _scores(self, logps: torch.Tensor, batch: PackedBatch) -> Scores:
        pairs = len(batch.weight)
        # A masked sum and no index_add: on a GPU that adds in any order, and Δ would not be 0 where both models are one.
        cells = torch.arange(pairs * 2 * batch.view_count, device=logps.device).unsqueeze(1)
        sums = torch.where(batch.cell == cells, logps, 0.0).sum(1)
        return Scores(sums.view(pairs, 2, batch.view_count), batch.tokens)


class _FrozenEnds(nn.Module):
    """What the frozen copy has beside its layers."""

    def __init__(self, parts: Parts):
        super().__init__()
        self.parts = parts
        self.projector = parts.projector
        self.embedding = parts.embedding
        self.norm = parts.norm
        self.head = LogProbHead(parts.head)


def _layers(parts: Parts) -> list[nn.Module]:
    """Its decoder layers, the last of which can be asked for some rows alone."""
    *layers, last = parts.layers
    return [*layers, LastLayer(last) if narrows(last) else last]


def _place(text: torch.Tensor, features: Sequence[torch.Tensor], slots: torch.Tensor) -> tuple[torch.Tensor, Added]:
    """(1, T, hidden): ``text`` (T, hidden) with the first of ``features`` at ``slots``; and the others."""
    placed, *added = features
    return text.index_copy(0, slots, placed.to(text.dtype)).unsqueeze(0), added


def _add(hidden: Any, added: Added, slots: torch.Tensor) -> Any:
    """(1, T, hidden): ``hidden`` with the next of ``added``, if any is left, added at ``slots``, which are all different."""
    return hidden.index_add(1, slots, added.pop(0).to(hidden.dtype).unsqueeze(0)) if added else hidden

"""How others score: whole right-padded sequences and all logits. The baselines of the ladder, and an oracle for tests.

``groups`` says which cells share a forward pass: one cell each (six separate forwards a model), or as the authors' trainer
has it, the four sequences with an image in one and the two without in another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...basics.views import BLIND_CONDITION, VIEWS, Cell, Scores, condition, prefix_of, views_of
from ...batches.encode import EncodedPair
from ...families import HfModel, ModelSide

Groups = tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class PaddedBatch:
    """P pairs as S = P × cells right-padded sequences of at most L tokens, of which R tokens are scored."""

    input_ids: torch.Tensor
    """(S, L) int64, image placeholders expanded."""
    attention_mask: torch.Tensor
    """(S, L) int64, 1 on tokens and 0 on padding."""
    pixels: torch.Tensor
    """float32, the images in row order: one is there once for each sequence that shows it."""
    grids: tuple[tuple[int, ...], ...]
    """What the family must know of each image's rows, on the host."""
    predicts: torch.Tensor
    """(R,) int64: flat position (row × L + column) whose output predicts a scored token."""
    targets: torch.Tensor
    """(R,) int64: the scored token ids."""
    cell: torch.Tensor
    """(R,) int64: flat index into (P, 2, V) that the token's log-probability adds to."""

    def to(self, device: torch.device) -> PaddedBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class PaddedBatches:
    """The forward passes of one model over P pairs."""

    parts: tuple[PaddedBatch, ...]
    """One a group of cells."""
    tokens: torch.Tensor
    """(P, 2) int64: scored tokens of each response."""
    weight: torch.Tensor
    """(P,) float32."""
    view_count: int = len(VIEWS)
    """V."""

    def to(self, device: torch.device) -> PaddedBatches:
        parts = tuple(part.to(device) for part in self.parts)
        return replace(self, parts=parts, tokens=self.tokens.to(device), weight=self.weight.to(device))


@dataclass(frozen=True)
class PaddedCollate:
    """Encoded pairs -> :class:`PaddedBatches`."""

    groups: Groups
    """The cells of each forward pass."""

    def __call__(self, pairs: Sequence[EncodedPair], family: ModelSide) -> PaddedBatches:
        views = len(views_of(cell for cells in self.groups for cell in cells))
        return PaddedBatches(
            tuple(_pad(pairs, cells, family, views) for cells in self.groups),
            torch.tensor([[len(r) for r in pair.text.responses] for pair in pairs]),
            torch.tensor([pair.weight for pair in pairs], dtype=torch.float32),
            views,
        )


def _pad(pairs: Sequence[EncodedPair], cells: tuple[Cell, ...], family: ModelSide, views: int) -> PaddedBatch:
    rows: list[np.ndarray] = []
    images, predicts, cell = [], [], []
    for p, pair in enumerate(pairs):
        for side, view in cells:
            shown = condition(side, view)
            prefix, response = pair.text.prefixes[prefix_of(shown)], pair.text.responses[side]
            images += [] if shown == BLIND_CONDITION else [pair.images[shown]]
            predicts.append((len(rows), np.arange(len(prefix) - 1, len(prefix) + len(response) - 1)))
            cell.append(np.full(len(response), (2 * p + side) * views + view))
            rows.append(np.concatenate([prefix, response]))
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for r, row in enumerate(rows):
        ids[r, : len(row)], mask[r, : len(row)] = row, 1
    flat = np.concatenate([r * width + columns for r, columns in predicts])
    pictures = family.pixels(images)
    return PaddedBatch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        pictures.pixels,
        pictures.grids,
        torch.from_numpy(flat),
        torch.from_numpy(ids.reshape(-1)[flat + 1]),
        torch.from_numpy(np.concatenate(cell)),
    )


class PaddedScorer(nn.Module):
    """``scorer(batches) -> (policy Scores, reference Scores)``, model after model, forward after forward.

    ``reference`` is a second whole model, or None: the policy inside ``adapters_off()``.
    """

    leaves: tuple[type[nn.Module], ...] = ()
    """Nothing is gathered in one piece."""

    def __init__(self, family: ModelSide, policy: HfModel, reference: HfModel | None, adapters_off: Callable[[], Any]):
        super().__init__()
        self.family, self.policy, self.reference, self.adapters_off = family, policy, reference, adapters_off

    def forward(self, batches: PaddedBatches) -> tuple[Scores, Scores]:
        with torch.no_grad():
            if self.reference is not None:
                reference = self._scores(self.reference, batches)
            else:
                with self.adapters_off():
                    reference = self._scores(self.policy, batches)
        return self._scores(self.policy, batches), reference

    def _scores(self, model: HfModel, batches: PaddedBatches) -> Scores:
        size, sums = len(batches.weight) * 2 * batches.view_count, []
        for part in batches.parts:
            logps = self._token_logps(model, part)
            sums.append(logps.new_zeros(size).index_add(0, part.cell, logps))
        return Scores(sum(sums[1:], sums[0]).view(-1, 2, batches.view_count), batches.tokens)

    def _token_logps(self, model: HfModel, batch: PaddedBatch) -> torch.Tensor:
        """(R,) log-probabilities, from the logits of every position as TRL's and the authors' trainers take them."""
        embeddings = model.get_input_embeddings()(batch.input_ids)
        parts = self.family.parts(model)
        if batch.grids:
            encoded = self.family.encode_images(parts, batch.pixels, batch.grids)
            (features,) = self.family.project(parts, encoded, batch.grids)
            shown = self.family.image_token_mask(batch.input_ids).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(shown, features.to(embeddings.dtype))
        hidden = parts.language_model(inputs_embeds=embeddings, attention_mask=_mask(batch), use_cache=False)
        return all_logits(model.get_output_embeddings(), hidden.last_hidden_state.flatten(0, 1), batch)


def _mask(batch: PaddedBatch) -> torch.Tensor:
    """The padding mask; on the meta device, where transformers cannot read its values, the causal mask they come down to."""
    if not batch.input_ids.is_meta:
        return batch.attention_mask
    rows, length = batch.input_ids.shape
    return torch.ones(rows, 1, length, length, dtype=torch.bool, device="meta")


def all_logits(head: nn.Module, hidden: torch.Tensor, batch: Any) -> torch.Tensor:
    """(R,) log-probabilities of ``batch``'s scored tokens from the logits of all positions of ``hidden`` (T, hidden)."""
    logits = head(hidden)
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact.log_softmax(-1)[batch.predicts].gather(1, batch.targets.unsqueeze(1)).squeeze(1)

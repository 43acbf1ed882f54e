"""The padded scorer: six whole sequences a pair, right-padded, one forward of the language model a stream.

Plain and slow on purpose: it is the oracle that faster scorers are held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from ..families import Family
from ..prepare import EncodedPair, Lengths
from ..views import ALL_CELLS, VIEWS, Cell, Scores, condition


@dataclass(frozen=True)
class PaddedBatch:
    """P pairs as S = P × cells right-padded sequences of at most L tokens, of which T tokens are scored."""

    input_ids: torch.Tensor
    """(S, L) int64, image placeholders expanded."""
    attention_mask: torch.Tensor
    """(S, L) int64, 1 on tokens and 0 on padding."""
    pixels: torch.Tensor
    """(2P, ...) float32: image 0 and image 1 of each pair."""
    image_of_row: torch.Tensor
    """(S with an image,) int64: index into ``pixels`` of each sequence that shows an image, in row order."""
    predicts: torch.Tensor
    """(T,) int64: flat position (row × L + column) whose output predicts a scored token."""
    targets: torch.Tensor
    """(T,) int64: the scored token ids."""
    cell: torch.Tensor
    """(T,) int64: flat index into (P, 2, V) that the token's log-probability adds to."""
    tokens: torch.Tensor
    """(P, 2) int64: scored tokens of each response."""
    weight: torch.Tensor
    """(P,) float32: 1, or 0 for fillers."""

    @property
    def llm_tokens(self) -> int:
        """Tokens that go through the language model in one stream, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> PaddedBatch:
        return PaddedBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def pin_memory(self) -> PaddedBatch:
        return PaddedBatch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


@dataclass(frozen=True)
class PaddedCollate:
    """Encoded pairs -> :class:`PaddedBatch`, for the cells an objective reads."""

    cells: frozenset[Cell] = ALL_CELLS
    """The (side, view) cells to lay out; the others stay 0."""

    def __call__(self, pairs: Sequence[EncodedPair], family: Family) -> PaddedBatch:
        rows, images, predicts, cell = [], [], [], []
        for p, pair in enumerate(pairs):
            for side, view in sorted(self.cells):
                shown = condition(side, view)
                prefix, response = pair.text.prefixes[shown], pair.text.responses[side]
                if shown < 2:
                    images.append(2 * p + shown)
                # The prefix's last position predicts the first response token.
                predicts.append((len(rows), np.arange(len(prefix) - 1, len(prefix) + len(response) - 1)))
                cell.append(np.full(len(response), (2 * p + side) * len(VIEWS) + view))
                rows.append(np.concatenate([prefix, response]))
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for r, row in enumerate(rows):
            ids[r, : len(row)], mask[r, : len(row)] = row, 1
        flat = np.concatenate([r * width + columns for r, columns in predicts])
        return PaddedBatch(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            pixels=family.pixels([image for pair in pairs for image in pair.images]),
            image_of_row=torch.tensor(images, dtype=torch.int64),
            predicts=torch.from_numpy(flat),
            targets=torch.from_numpy(ids.reshape(-1)[flat + 1]),
            cell=torch.from_numpy(np.concatenate(cell)),
            tokens=torch.tensor([[len(r) for r in pair.text.responses] for pair in pairs]),
            weight=torch.tensor([pair.weight for pair in pairs], dtype=torch.float32),
        )

    def costs(self, lengths: Lengths) -> np.ndarray:
        """(N,) int64 language-model tokens of each pair when scored alone: cells × its longest sequence."""
        ends = [lengths.prefixes[:, condition(side, view)] + lengths.responses[:, side] for side, view in self.cells]
        return np.max(ends, axis=0).astype(np.int64) * len(self.cells)


class PaddedScorer(nn.Module):
    """``scorer(batch) -> (policy Scores, reference Scores)``; the root module that the engine wraps.

    ``reference`` is either a frozen copy of the model, or None, in which case the policy itself is read inside
    ``adapters_off()``. Both streams run inside one forward of this module, always in the same order.
    """

    def __init__(self, family: Family, policy: nn.Module, reference: nn.Module | None, adapters_off: Any = None):
        super().__init__()
        self.family = family
        self.policy = policy
        self.reference = reference
        self.adapters_off = adapters_off

    def forward(self, batch: PaddedBatch) -> tuple[Scores, Scores]:
        with torch.no_grad(), self._reference_stream() as model:
            reference = score(self.family, model, batch)
        return score(self.family, self.policy, batch), reference

    def _reference_stream(self) -> AbstractContextManager[nn.Module]:
        return self.adapters_off(self.policy) if self.reference is None else nullcontext(self.reference)


def score(family: Family, model: nn.Module, batch: PaddedBatch) -> Scores:
    """Scores of one model: log-probabilities (P, 2, V) summed over each response's tokens, in float32 or better."""
    features = family.image_features(model, batch.pixels)
    embeddings = model.get_input_embeddings()(batch.input_ids)
    shown = family.image_token_mask(batch.input_ids).unsqueeze(-1)
    embeddings = embeddings.masked_scatter(shown, features[batch.image_of_row].to(embeddings.dtype))
    hidden = family.language_model(model)(
        inputs_embeds=embeddings, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state
    # Only positions that predict a scored token reach the head.
    logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.predicts])
    exact = logits if logits.dtype == torch.float64 else logits.float()
    token_logps = -nn.functional.cross_entropy(exact, batch.targets, reduction="none")
    pairs = len(batch.weight)
    sums = token_logps.new_zeros(pairs * 2 * len(VIEWS)).index_add(0, batch.cell, token_logps)
    return Scores(sums.view(pairs, 2, len(VIEWS)), batch.tokens)

"""Log-probabilities token by token: from a packed row back to the responses of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from ...batches.pack import PackedBatch

Side = np.ndarray
"""(T, V) float64, nats: log-probability of every token of a response under every view; NaN where a view's budget cut it."""
BothSides = tuple[tuple[np.ndarray, Side], tuple[np.ndarray, Side]]
"""((T,) int64 token ids, log-probabilities) of side 0 and of side 1."""


@dataclass(frozen=True)
class PairTokens:
    """One pair token by token, by every model asked."""

    index: int
    """Its index in the shard set."""
    ids: tuple[np.ndarray, np.ndarray]
    """(T,) int64 token ids of the response of side 0 and of side 1."""
    logps: Mapping[str, tuple[Side, Side]]
    """Name of a model -> side 0 and side 1."""


@dataclass(frozen=True)
class Probed:
    """N pairs token by token, in the order of their index."""

    pairs: tuple[PairTokens, ...]
    """The pairs that could be scored."""
    bad: tuple[str, ...]
    """What was wrong with each of the others."""

    @property
    def tokens(self) -> np.ndarray:
        """(N, 2) int64 scored tokens of each response."""
        return np.array([[len(ids) for ids in pair.ids] for pair in self.pairs], np.int64).reshape(-1, 2)

    def logps(self, model: str) -> np.ndarray:
        """(N, 2, V) float64, nats: the same sums over tokens as :class:`~svco.basics.views.Scores` holds."""
        cells = [[np.nansum(side, axis=0) for side in pair.logps[model]] for pair in self.pairs]
        return np.array(cells, float)


def split(logps: torch.Tensor, batch: PackedBatch, pairs: int) -> list[BothSides]:
    """The first ``pairs`` pairs of ``batch``: for each (ids, log-probabilities) of side 0 and of side 1.

    ``logps`` (R,) are those of ``batch.targets``. A response's ids are those of the view that scored most of it: a budget
    cuts at the end, so token k is the same token under every view.
    """
    values, ids, cell = (t.detach().cpu().numpy() for t in (logps.double(), batch.targets, batch.cell))
    views = batch.view_count
    order = np.argsort(cell, kind="stable")
    bounds = np.searchsorted(cell[order], np.arange(pairs * 2 * views + 1))
    rows = [order[start:stop] for start, stop in zip(bounds, bounds[1:])]

    def side(first: int) -> tuple[np.ndarray, Side]:
        here = rows[first : first + views]
        longest = max(here, key=len)
        table = np.full((len(longest), views), np.nan)
        for view, row in enumerate(here):
            table[: len(row), view] = values[row]
        return ids[longest], table

    return [(side(2 * p * views), side((2 * p + 1) * views)) for p in range(pairs)]


def probe_pairs(
    models: Mapping[str, Callable[[PackedBatch], torch.Tensor]], steps: Iterable[Any], device: Any
) -> Probed:
    """Scores every batch of the loader's ``steps`` with every one of ``models``, a function from batch to (R,) log-probs."""
    import torch

    found: list[PairTokens] = []
    bad: list[str] = []
    with torch.no_grad():
        for step in steps:
            bad += [str(error) for error in step.bad]
            for batch, indices in zip(step.batches, step.indices, strict=True):
                weights = batch.weight.tolist()
                batch = batch.to(device)
                by_model = {name: split(score(batch), batch, len(indices)) for name, score in models.items()}
                for place, (index, weight) in enumerate(zip(indices, weights, strict=False)):
                    if weight:
                        found.append(_pair(index, {name: pairs[place] for name, pairs in by_model.items()}))
    return Probed(tuple(sorted(found, key=lambda pair: pair.index)), tuple(bad))


def _pair(index: int, by_model: Mapping[str, BothSides]) -> PairTokens:
    (first, _), (second, _) = next(iter(by_model.values()))
    return PairTokens(index, (first, second), {name: (a, b) for name, ((_, a), (_, b)) in by_model.items()})


def readable(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to the response: byte-level and sentencepiece marks gone, spaces kept.

    A character of several tokens is shown at its last one, the others as ``…``; so is what decodes to nothing. Joined, the
    pieces are the response as it reads (but for those marks).
    """
    pieces, before = [], ""
    for place in range(len(ids)):
        whole = _decode(tokenizer, ids[: place + 1])
        if whole.endswith("\ufffd"):  # the bytes so far are no whole character yet
            pieces.append("…")
            continue
        added = whole[len(before) :] if whole.startswith(before) else _decode(tokenizer, ids[place : place + 1])
        pieces.append(added or "…")
        before = whole
    return pieces


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    # spaces_between_special_tokens: slow tokenizers would put some that are not there.
    return tokenizer.decode(
        [int(i) for i in ids],
        skip_special_tokens=False,
        clean_up_tokenization_spaces=False,
        spaces_between_special_tokens=False,
    )

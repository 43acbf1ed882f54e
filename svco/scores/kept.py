"""What a run keeps of the held-out pairs that it scored at its end, and which of them are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..basics.sealed import read_arrays, write_arrays
from .pair_scores import PairScores, in_turn, pair_right

KEPT = "heldout.npz"
"""Its file in the run's folder."""


@dataclass(frozen=True)
class KeptScores:
    """N pairs before and after training, in the order of their shards; bad ones are left out."""

    index: np.ndarray
    """(N,) int64: number of the pair in the run's held-out shards."""
    key: np.ndarray
    """(N,) str."""
    contrast: np.ndarray
    """(N,) str: contrast type."""
    before: np.ndarray
    """(N, 2, V) float64, nats: the response of side s under view v, by the reference."""
    after: np.ndarray
    """(N, 2, V) float64, nats: by the policy."""
    tokens: np.ndarray
    """(N, 2) int64: scored tokens of each response."""

    @classmethod
    def of(cls, scores: PairScores, named: list[tuple[str, str]]) -> KeptScores:
        """``scores`` with (key, contrast type) of each of its pairs."""
        key, contrast = (np.array([pair[n] for pair in named], dtype=str) for n in (0, 1))
        return cls(scores.index, key, contrast, scores.reference, scores.policy, scores.tokens)

    def save(self, folder: Path) -> None:
        """Writes ``heldout.npz`` into ``folder``."""
        write_arrays(folder / KEPT, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> KeptScores:
        """That of ``folder``; OSError if there is none, ValueError if it is damaged or of other shapes."""
        found = cls(*read_arrays(folder / KEPT, *cls.__dataclass_fields__))
        pairs, views = len(found.index), found.before.shape[-1] if found.before.ndim == 3 else 0
        shapes = [array.shape for array in vars(found).values()]
        if views not in (3, 4) or shapes != [(pairs,)] * 3 + [(pairs, 2, views)] * 2 + [(pairs, 2)]:
            raise ValueError("its arrays have other shapes than svco writes")
        return found

    def examples(self, count: int = 0) -> list[int]:
        """Rows of the pairs that are shown, ``count`` at most (0: all): of every contrast type in turn, and within a type first
        those that training turned, then in order. The rule is fixed; none is picked by hand."""
        turned = pair_right(self.after) & ~pair_right(self.before)
        queues = [
            sorted(np.flatnonzero(self.contrast == kind).tolist(), key=lambda row: not turned[row])
            for kind in sorted(set(self.contrast.tolist()))
        ]
        return in_turn(queues)[: count or None]

"""Scoring held-back pairs with policy and reference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.views import BLIND, CLASH, MATCH, VIEWS


@dataclass(frozen=True)
class PairScores:
    """Log-probabilities of N pairs by one or two models, in the order of their index."""

    index: np.ndarray
    """(N,) int64 index in the shard set; bad pairs are left out."""
    policy: np.ndarray
    """(N, 2, V) float64, nats."""
    reference: np.ndarray
    """(N, 2, V) float64, nats."""
    tokens: np.ndarray
    """(N, 2) int64 scored tokens of each response."""
    bad: int = 0
    """Pairs that could not be scored."""


def score_pairs(engine: Callable[[Any], Any], steps: Iterable[Any], world: World) -> PairScores:
    """Scores every batch of the loader's ``steps`` without gradients; every rank gets all ranks' results."""
    import torch

    mine, bad, views = [], 0, len(VIEWS)
    with torch.no_grad():
        for step in steps:
            for error in step.bad:
                bad += 1
                warnings.warn(f"left out of the evaluation ({error.reason}): {error}", stacklevel=2)
            for batch, indices in zip(step.batches, step.indices, strict=True):
                policy, reference = engine(batch.to(world.device))
                views = policy.logps.shape[-1]
                # A rank's filler has no index: zip with the indices drops it, weight 0 drops bad pairs.
                rows = zip(
                    indices,
                    batch.weight.tolist(),
                    policy.logps.double().cpu().numpy(),
                    reference.logps.double().cpu().numpy(),
                    policy.tokens.cpu().numpy(),
                    strict=False,
                )
                mine += [(index, p, r, t) for index, weight, p, r, t in rows if weight]
    everyone = sorted(chain.from_iterable(world.gather(mine)), key=itemgetter(0))
    index, policy, reference, tokens = zip(*everyone) if everyone else ((), (), (), ())
    shape = (len(everyone), 2, views)
    return PairScores(
        np.asarray(index, np.int64),
        np.asarray(policy, float).reshape(shape),
        np.asarray(reference, float).reshape(shape),
        np.asarray(tokens, np.int64).reshape(-1, 2),
        bad=sum(world.gather(bad)),
    )


def pair_right(logps: np.ndarray) -> np.ndarray:
    """(N,) bool, MMVP style: under BOTH images the true response is likelier than the other side's.

    ``logps`` (N, 2, V). Response 1 under image 0 is cell (1, clash), response 0 under image 1 is cell (0, clash).
    """
    return (logps[:, 0, MATCH] > logps[:, 1, CLASH]) & (logps[:, 1, MATCH] > logps[:, 0, CLASH])


def image_right(logps: np.ndarray) -> np.ndarray:
    """(N,) bool, Winoground's image score: BOTH responses are likelier under their own image than under the other side's."""
    own = logps[..., MATCH] > logps[..., CLASH]
    return own[:, 0] & own[:, 1]


def without_prior(logps: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """``logps`` (N, 2, V) less ``alpha`` times what the language alone makes of a response: log p(t | i) − α log p(t), with the
    blind cell as log p(t) (VisualGPTScore, arXiv 2306.01879, divides P(t | i) by P(t)^α and estimates P(t) from images of noise).

    α = 1 is pointwise mutual information: no response is likelier than another before an image is seen. The paper also tunes α on
    a validation set; here nothing is tuned.
    """
    return logps - alpha * logps[..., BLIND : BLIND + 1]


def in_turn(queues: Sequence[Sequence[int]]) -> list[int]:
    """The first of every queue, then the second of each, and so on: how a few pairs of every contrast type are shown."""
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]

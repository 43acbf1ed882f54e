"""Scores held-back pairs with policy and reference, and turns the scores into the numbers people read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH, VIEWS
from ..data.pairs import CONTRASTS


@dataclass(frozen=True)
class InOrder:
    """The first ``count`` pairs of a shard set one after another: the order of an evaluation."""

    count: int
    """Pairs in all."""
    global_batch: int
    """Pairs a step over all ranks."""

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.global_batch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch 0, the indices of ``step``)."""
        return 0, np.arange(step * self.global_batch, min(self.count, (step + 1) * self.global_batch))


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
    everyone = sorted((row for part in world.gather(mine) for row in part), key=lambda row: row[0])
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


def in_turn(queues: Sequence[Sequence[int]]) -> list[int]:
    """The first of every queue, then the second of each, and so on: how a few pairs of every contrast type are shown."""
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]


def metrics(logps: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """The numbers of one model on N pairs, from its log-probabilities (N, 2, V) and token counts (N, 2).

    ``pair_accuracy``; ``match_minus_blind`` and ``blind_minus_clash``, mean nats a response; ``blind_likelier``, the
    share of responses that are likelier without their image than with it; ``perplexity_*`` of the responses, per token.
    With V = 4 ``match_minus_corrupt`` and ``perplexity_corrupt`` too.
    """
    if not len(logps):
        return {}
    views = ALL_VIEWS[: logps.shape[-1]]
    corrupted = ALL_VIEWS[CORRUPT] in views
    return {
        "pair_accuracy": float(pair_right(logps).mean()),
        "match_minus_blind": float((logps[..., MATCH] - logps[..., BLIND]).mean()),
        "blind_minus_clash": float((logps[..., BLIND] - logps[..., CLASH]).mean()),
        **({"match_minus_corrupt": float((logps[..., MATCH] - logps[..., CORRUPT]).mean())} if corrupted else {}),
        "blind_likelier": float((logps[..., BLIND] > logps[..., MATCH]).mean()),
        **{f"perplexity_{view}": float(np.exp(-logps[..., v].sum() / tokens.sum())) for v, view in enumerate(views)},
    }


def summarise(scores: PairScores, contrast_of: Mapping[int, str]) -> dict[str, Any]:
    """Before (the reference) and after (the policy): overall, and pair accuracy by contrast type.

    ``{"pairs": N, "bad": left out, "before": metrics, "after": metrics, "by_contrast": {type: part}}``, a part being
    its pairs and the pair accuracy before and after.
    """
    kinds = np.array([contrast_of[i] for i in scores.index.tolist()], dtype=object)
    before, after = pair_right(scores.reference), pair_right(scores.policy)
    by_contrast = {
        kind: {"pairs": int(rows.sum()), "before": float(before[rows].mean()), "after": float(after[rows].mean())}
        for kind in CONTRASTS
        if (rows := kinds == kind).any()
    }
    return {
        "pairs": len(scores.index),
        "bad": scores.bad,
        "before": metrics(scores.reference, scores.tokens),
        "after": metrics(scores.policy, scores.tokens),
        "by_contrast": by_contrast,
    }


_ROWS = (
    ("pair accuracy", "pair_accuracy", "{:.1%}"),
    ("match − blind, nats", "match_minus_blind", "{:+.2f}"),
    ("blind − clash, nats", "blind_minus_clash", "{:+.2f}"),
    ("match − corrupt, nats", "match_minus_corrupt", "{:+.2f}"),
    ("blind likelier than match", "blind_likelier", "{:.1%}"),
    *((f"perplexity, {view}", f"perplexity_{view}", "{:.3f}") for view in ALL_VIEWS),
)
"""Title, metric and format of each row of the table; of the corrupted view where it was scored."""


def table(summary: Mapping[str, Any], title: str) -> str:
    """A before/after table for a terminal; accuracies with their standard error in percentage points."""
    left_out = f", {summary['bad']} bad ones left out" if summary["bad"] else ""
    lines = [f"{title} ({summary['pairs']} pairs{left_out})", f"{'':<28}{'before':>12}{'after':>12}{'change':>12}"]
    if not summary["pairs"]:
        return f"{title}: no pair could be scored."

    def row(name: str, pattern: str, before: float, after: float) -> str:
        change = f"{100 * (after - before):+.1f} pts" if "%" in pattern else f"{after - before:+.3g}"
        return f"{name:<28}{pattern.format(before):>12}{pattern.format(after):>12}{change:>12}"

    before, after = summary["before"], summary["after"]
    lines += [row(name, pattern, before[key], after[key]) for name, key, pattern in _ROWS if key in after]
    lines += [
        row(f"  {kind} (n={part['pairs']})", "{:.1%}", part["before"], part["after"])
        for kind, part in summary["by_contrast"].items()
    ]
    accuracy = summary["after"]["pair_accuracy"]
    error = 100 * (accuracy * (1 - accuracy) / summary["pairs"]) ** 0.5
    lines.append(f"standard error of the pair accuracy after: {error:.1f} points")
    return "\n".join(lines)

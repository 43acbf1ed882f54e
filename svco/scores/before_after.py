"""Before and after training: the numbers of a set of pairs, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from ..data.pairs import CONTRASTS
from .pair_scores import PairScores, pair_right


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

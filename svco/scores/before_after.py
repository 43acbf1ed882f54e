"""Before and after training: the numbers of a set of pairs, and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..basics.errors import UserError, nearest
from ..basics.views import ALL_VIEWS
from ..data.schema import CONTRASTS
from .measures import MATCHES, NAMES, matched, scored
from .pair_scores import PairScores, pair_right
from .statistics import compare

_FORMATS = {
    **dict.fromkeys(MATCHES, "{:.1%}"),
    "match_minus_blind": "{:+.2f}",
    "blind_minus_clash": "{:+.2f}",
    "match_minus_corrupt": "{:+.2f}",
    "blind_likelier": "{:.1%}",
    **{f"perplexity_{view}": "{:.3f}" for view in ALL_VIEWS},
}
"""Measure -> how the table writes it, in its order; of the corrupted view where it was scored."""


_LOWER_IS_BETTER = ("blind_likelier", *(f"perplexity_{view}" for view in ALL_VIEWS))


def measure_to_judge_by(key: str, corrupt: bool) -> tuple[str, bool]:
    """(measure, whether higher is better) of ``checkpoint.keep_best=key``; ``corrupt``: the corrupted view is scored. UserError
    for what no validation measures."""
    measure = key.removeprefix("-").removeprefix("validation/")
    known = [name for name in _FORMATS if corrupt or "corrupt" not in name]
    if measure not in known:
        raise UserError(
            f"checkpoint.keep_best is {key!r}, which is no number of this run's validation.{nearest(measure, known)} Write it as "
            "validation/NAME."
        )
    return measure, (measure not in _LOWER_IS_BETTER) is not key.startswith("-")


def metrics(logps: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """The numbers of one model on N pairs that the table shows, from its log-probabilities (N, 2, V) and tokens (N, 2):
    those of :func:`~svco.scores.measures.scored`, without their errors. Empty of no pairs."""
    measures = scored(logps, tokens) if len(logps) else {}
    return {name: measures[name].value for name in _FORMATS if name in measures}


def summarise(scores: PairScores, contrast_of: Mapping[int, str]) -> dict[str, Any]:
    """Before (the reference) and after (the policy): overall, and pair accuracy by contrast type.

    ``{"pairs": N, "bad": left out, "before": metrics, "after": metrics, "change": {score: comparison}, "by_contrast": {type:
    part}}``: of each of ``MATCHES`` after minus before, with its interval and exact test
    (:func:`~svco.scores.statistics.compare`); a part is its pairs and the pair accuracy before and after.
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
        "change": {
            name: comparison.json()
            for name, comparison in compare(matched(scores.policy), matched(scores.reference)).items()
        },
        "by_contrast": by_contrast,
    }


def table(summary: Mapping[str, Any], title: str) -> str:
    """A before/after table for a terminal; changes of pair scores with their 95% interval and p. What was no finite number,
    None in a ``summary`` that was read from JSON, is ``nan`` there."""
    if not summary["pairs"]:
        return f"{title}: no pair could be scored."
    left_out = f", {summary['bad']} bad ones left out" if summary["bad"] else ""
    lines = [f"{title} ({summary['pairs']} pairs{left_out})", f"{'':<28}{'before':>12}{'after':>12}{'change':>12}"]

    def row(name: str, pattern: str, *numbers: float | None) -> str:
        before, after = (math.nan if number is None else number for number in numbers)
        change = f"{100 * (after - before):+.1f} pts" if "%" in pattern else f"{after - before:+.3g}"
        return f"{name:<28}{pattern.format(before):>12}{pattern.format(after):>12}{change:>12}"

    before, after, change = summary["before"], summary["after"], summary.get("change", {})  # older runs have none
    lines += [
        row(NAMES[key], pattern, before[key], after[key]) + _surely(change.get(key))
        for key, pattern in _FORMATS.items()
        if key in after
    ]
    lines += [
        row(f"  {kind} (n={part['pairs']})", "{:.1%}", part["before"], part["after"])
        for kind, part in summary["by_contrast"].items()
    ]
    accuracy = summary["after"]["pair_accuracy"]  # a share, so always a number
    error = 100 * (accuracy * (1 - accuracy) / summary["pairs"]) ** 0.5
    lines.append(f"standard error of the pair accuracy after: {error:.1f} points")
    return "\n".join(lines)


def _surely(change: Mapping[str, Any] | None) -> str:
    """`` [low, high], p`` of a comparison, in points."""
    if change is None or change["low"] is None or change["high"] is None:
        return ""
    p = f"{change['p']:.3f}" if change["p"] >= 0.001 else f"{change['p']:.0e}"
    return f"  [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}], p {p}"

"""What is measured on scored pairs: every measure with its name in tables, by pair."""

from __future__ import annotations

import numpy as np

from ..basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from .pair_scores import pair_right
from .statistics import Measure

NAMES = {
    "pair_accuracy": "pair accuracy",
    "match_minus_blind": "match − blind, nats",
    "blind_minus_clash": "blind − clash, nats",
    "match_minus_corrupt": "match − corrupt, nats",
    "blind_likelier": "blind likelier than match",
    "own_image": "own image preferred",
    "nll_match": "−log p under match, nats a token",
    **{f"perplexity_{view}": f"perplexity, {view}" for view in ALL_VIEWS},
    "hallucination": "answers that say something false",
    "empty": "empty answers",
}
"""Measure -> how tables call it, in their order."""
SHARES = ("pair_accuracy", "blind_likelier", "own_image", "hallucination", "empty")
"""Measures that are shares, shown in percent."""


def scored(logps: np.ndarray, tokens: np.ndarray) -> dict[str, Measure]:
    """The measures of one model's log-probabilities (N, 2, V), nats, with the (N, 2) tokens of the responses.

    ``pair_accuracy``: under both images the true response is likelier than the other side's; gaps: mean nats a response;
    ``blind_likelier``: share of responses likelier without their image; ``own_image``: share likelier under their own image than
    under the other side's; ``nll_match`` and ``perplexity_<view>``: a token.
    """
    tokens = tokens.sum(1).astype(float)
    found = {
        "pair_accuracy": Measure.share(pair_right(logps)),
        "match_minus_blind": Measure.mean((logps[..., MATCH] - logps[..., BLIND]).mean(1)),
        "blind_minus_clash": Measure.mean((logps[..., BLIND] - logps[..., CLASH]).mean(1)),
        "blind_likelier": Measure.rate((logps[..., BLIND] > logps[..., MATCH]).mean(1)),
        "own_image": Measure.rate((logps[..., MATCH] > logps[..., CLASH]).mean(1)),
        "nll_match": Measure(-logps[..., MATCH].sum(1), tokens),
    }
    if logps.shape[2] > CORRUPT:
        found["match_minus_corrupt"] = Measure.mean((logps[..., MATCH] - logps[..., CORRUPT]).mean(1))
    views = enumerate(ALL_VIEWS[: logps.shape[2]])
    return found | {f"perplexity_{name}": Measure(-logps[..., view].sum(1), tokens, "exp") for view, name in views}

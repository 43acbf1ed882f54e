"""What is measured on scored pairs: every measure with its name in tables, by pair."""

from __future__ import annotations

import numpy as np

from ..basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from .pair_scores import image_right, pair_right, without_prior
from .statistics import Measure

NAMES = {
    "pair_accuracy": "pair accuracy",
    "image_accuracy": "image accuracy",
    "group_accuracy": "group accuracy",
    "pair_accuracy_corrected": "pair accuracy, no prior",
    "group_accuracy_corrected": "group accuracy, no prior",
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
MATCHES = (
    "pair_accuracy",
    "image_accuracy",
    "group_accuracy",
    "pair_accuracy_corrected",
    "group_accuracy_corrected",
)
"""The scores of a pair set: shares of pairs that are right."""
SHARES = (*MATCHES, "blind_likelier", "own_image", "hallucination", "empty")
"""Measures that are shares, shown in percent."""


def matched(logps: np.ndarray) -> dict[str, Measure]:
    """``MATCHES`` of log-probabilities (N, 2, V), nats. A tie is not right, nor is what has no number (NaN).

    Winoground's three (arXiv 2204.03162): ``pair_accuracy`` (its text score), under both images the true response is likelier
    than the other side's; ``image_accuracy``, both responses are likelier under their own image; ``group_accuracy``, both. And
    two of them ``_corrected`` for the language prior (:func:`~svco.scores.pair_scores.without_prior`): the image score compares
    a response with itself, so that its prior cancels and it is its own correction.
    """
    text, image, fair = pair_right(logps), image_right(logps), pair_right(without_prior(logps))
    found = (text, image, text & image, fair, fair & image)
    return {name: Measure.share(right) for name, right in zip(MATCHES, found, strict=True)}


def scored(logps: np.ndarray, tokens: np.ndarray) -> dict[str, Measure]:
    """The measures of one model's log-probabilities (N, 2, V), nats, with the (N, 2) tokens of the responses.

    Those of :func:`matched`; gaps: mean nats a response; ``blind_likelier``: share of responses likelier without their image;
    ``own_image``: share likelier under their own image than under the other side's; ``nll_match`` and ``perplexity_<view>``: a
    token.
    """
    tokens = tokens.sum(1).astype(float)
    found = matched(logps) | {
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

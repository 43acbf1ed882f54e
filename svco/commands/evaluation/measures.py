"""What is measured on a scored set, by pair: the vocabulary of eval.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from ...scores.pair_scores import pair_right
from ...scores.statistics import Measure, estimate
from .scoring import SetScores

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


def scored(scores: SetScores) -> dict[str, Measure]:
    """The measures of a set's log-probabilities.

    ``pair_accuracy``: under both images the true response is likelier than the other side's; gaps: mean nats a response;
    ``blind_likelier``: share of responses likelier without their image; ``own_image``: share likelier under their own image than
    under the other side's; ``nll_match`` and ``perplexity_<view>``: a token.
    """
    logps, tokens = scores.logps, scores.tokens.sum(1).astype(float)
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


def answered(answers: Sequence[Mapping[str, Any]]) -> dict[str, Measure]:
    """The measures of generated answers (lines of ``NAME.answers.jsonl``), by pair; nothing where there are none.

    ``hallucination``: share of the answers that were judged and are not empty with a false word; ``empty``: share of answers
    without a word.
    """
    keys = list(dict.fromkeys(answer["key"] for answer in answers))
    row = {key: n for n, key in enumerate(keys)}
    asked, judged, wrong, silent = (np.zeros(len(keys)) for _ in range(4))
    for answer in answers:
        place = row[answer["key"]]
        asked[place] += 1
        empty = not answer["answer"].strip()
        silent[place] += empty
        if answer["false"] is not None and not empty:  # saying nothing is not saying nothing false
            judged[place] += 1
            wrong[place] += bool(answer["false"])
    found = {"empty": Measure.rate(silent, asked)} if len(keys) else {}
    return ({"hallucination": Measure.rate(wrong, judged)} if judged.any() else {}) | found


def summary(scores: SetScores, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One set's part of eval.json: every measure with its error; by contrast type and by kind as well."""
    measures = scored(scores)
    told: dict[str, Any] = {"pairs": len(scores), "bad": scores.bad, "answers": len(answers)}
    if not len(scores):
        return told
    told |= {name: estimate(measure).json() for name, measure in (measures | answered(answers)).items()}
    for title, labels in (("by_contrast", scores.contrast), ("by_kind", scores.kind)):
        told[title] = {
            label: {"pairs": int(rows.sum())}
            | {name: estimate(measure[rows]).json() for name, measure in measures.items()}
            for label in sorted(set(labels.tolist()) - {""})
            if (rows := labels == label).any()
        }
    return told

"""What is measured on a scored set, by pair: the vocabulary of eval.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...scores.measures import scored
from ...scores.statistics import Measure, estimate
from .scoring import SetScores


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
    found = {}
    if judged.any():
        found["hallucination"] = Measure.rate(wrong, judged)
    if keys:
        found["empty"] = Measure.rate(silent, asked)
    return found


def summary(scores: SetScores, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One set's part of eval.json: every measure with its error; by contrast type and by kind as well."""
    measures = scored(scores.logps, scores.tokens)
    found: dict[str, Any] = {"pairs": len(scores), "bad": scores.bad, "answers": len(answers)}
    if not len(scores):
        return found
    found |= _estimates(measures | answered(answers))
    for title, labels in (("by_contrast", scores.contrast), ("by_kind", scores.kind)):
        found[title] = {}
        for label in sorted(set(labels.tolist()) - {""}):
            rows = labels == label
            part = {name: measure[rows] for name, measure in measures.items()}
            found[title][label] = {"pairs": int(rows.sum()), **_estimates(part)}
    return found


def _estimates(measures: Mapping[str, Measure]) -> dict[str, Any]:
    return {name: estimate(measure).json() for name, measure in measures.items()}

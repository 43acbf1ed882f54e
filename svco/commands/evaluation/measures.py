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
    found = {"empty": Measure.rate(silent, asked)} if len(keys) else {}
    return ({"hallucination": Measure.rate(wrong, judged)} if judged.any() else {}) | found


def summary(scores: SetScores, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One set's part of eval.json: every measure with its error; by contrast type and by kind as well."""
    measures = scored(scores.logps, scores.tokens)
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

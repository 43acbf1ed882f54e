"""POPE (arXiv 2305.10355): 9,000 questions whether an object is in a picture of COCO's, in three subsets by how the absent
objects were chosen.

From the release (``coco_pope_{random,popular,adversarial}.json`` and ``val2014/``) or the hub's parquet. The score is F1 of
"yes", the mean over the three subsets, as LLaVA reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....data.tables import file_lines
from ....scores.statistics import Measure, estimate
from ..generation import Question
from .asked import counts, labels_of, mean_by, rate_by, say
from .protocol import Asking, Benchmark
from .rows import Picture, check_pictures, need, opener, picture, split_files, split_rows

NAME = "pope"
SUBSETS = ("random", "popular", "adversarial")
SUFFIX = "\nAnswer the question using a single word or phrase."
RULE = "no where the first sentence has the word No, no or not, else yes (POPE); strict: the answer is yes or no (lmms-eval)"


@dataclass(frozen=True)
class Read:
    """One question of POPE."""

    key: str
    """Subset and number."""
    question: str
    """Without ``SUFFIX``."""
    right: str
    """``yes`` or ``no``."""
    subset: str
    """How its object was chosen."""
    image_id: str
    """Its picture's name: six questions of each subset are about it."""
    image: Picture
    """The picture."""


def read(folder: Path) -> list[Read]:
    """The questions of the three subsets, in their order; UserError where one is missing."""
    found = [_item(where, row, folder, subset) for subset, where, row in _rows(folder)]
    if absent := [subset for subset in SUBSETS if subset not in {item.subset for item in found}]:
        raise UserError(f"{folder} has no question of the subset {', '.join(absent)}; the score is over all three.")
    check_pictures([item.image for item in found], folder)
    return found


def _rows(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(subset, where, row). The official files are lines of JSON, whatever they are called; the hub has a split a subset, or one
    of all with the column ``category``."""
    for subset in SUBSETS:
        official = sorted(folder.rglob(f"coco_pope_{subset}.json"))
        if official:
            for number, row in file_lines(official[0]):
                yield subset, f"{official[0]}, line {number}", row if isinstance(row, dict) else {}
        elif split_files(folder, subset):
            yield from ((subset, where, row) for where, row in split_rows(folder, subset, NAME))
        elif subset == SUBSETS[0] and split_files(folder, "test"):
            for where, row in split_rows(folder, "test", NAME):
                yield str(row.get("category")), where, row
            return


def _item(where: str, row: Mapping[str, Any], folder: Path, subset: str) -> Read:
    row = {"question": row.get("text"), "answer": row.get("label"), **row}  # as the official files call them
    need(row, where, "question", "answer", "question_id")
    right = str(row["answer"]).strip().lower()
    if right not in ("yes", "no") or subset not in SUBSETS:
        raise UserError(f"{where}: answer {row['answer']!r}, subset {subset!r}; that is not POPE's form.")
    image = picture(row, where, folder, "image", "image_source", beside=["val2014", "images"])
    name = str(row.get("image_source") or row["image"])
    return Read(f"{subset} {row['question_id']}", str(row["question"]).strip(), right, subset, name, image)


def official_word(answer: str) -> str:
    """``yes`` or ``no`` by POPE's own ``evaluate.py``: every answer is one of them, an empty one ``yes``."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def strict_word(answer: str) -> str | None:
    """``yes`` or ``no`` where lmms-eval sees it: where the answer is just that, in any case."""
    word = answer.strip().lower()
    return word if word in ("yes", "no") else None


def answer(items: Sequence[Read], asking: Asking) -> list[dict[str, Any]]:
    """A line: :func:`say`'s, ``right``, ``subset``, ``image_id``, ``said`` by POPE's rule (of a question that could not be asked:
    what is wrong) and ``strict`` by lmms-eval's. A collective."""
    questions = [Question(item.key, item.question + SUFFIX, opener(item.image, item.key)) for item in items]
    wrong = {"yes": "no", "no": "yes"}
    return [
        line
        | {
            "right": item.right,
            "subset": item.subset,
            "image_id": item.image_id,
            "said": official_word(line["answer"]) if line["asked"] else wrong[item.right],
            "strict": strict_word(line["answer"]),
        }
        for item, line in zip(items, say(NAME, questions, asking), strict=True)
    ]


def _table(lines: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: yes was said, and yes is right."""
    return labels_of(lines, "said") == "yes", labels_of(lines, "right") == "yes"


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By picture. ``score``: the mean of the subsets' F1, linearised for its errors; ``accuracy`` and ``recall`` of all, ``yes``
    (the share of answers), ``strict`` (accuracy by lmms-eval's rule)."""
    said, right = _table(lines)
    pictures, subsets = labels_of(lines, "image_id").tolist(), labels_of(lines, "subset")
    hit = said & right
    values = np.zeros(len(lines))
    names = sorted(set(subsets.tolist()))
    for name in names:
        of = subsets == name
        twice, all_of = 2.0 * hit[of], 1.0 * said[of] + right[of]
        total = all_of.sum()
        f1 = twice.sum() / total if total else 0.0
        moved = (twice - f1 * all_of) / (total / of.sum()) if total else 0.0 * twice
        values[of] = (f1 + moved) * len(lines) / (len(names) * of.sum())
    return {
        "score": mean_by(pictures, values.tolist()),
        "accuracy": rate_by(pictures, (said == right).tolist()),
        "recall": rate_by(pictures, hit.tolist(), right.tolist()),
        "yes": rate_by(pictures, said.tolist()),
        "strict": rate_by(pictures, [line["strict"] == line["right"] for line in lines]),
    }


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """POPE's part of eval.json. ``score``: mean F1 of the subsets, from 0 to 1."""
    found = measures(lines, paper_compat)
    subsets = labels_of(lines, "subset")
    by = {name: [line for line in lines if line["subset"] == name] for name in SUBSETS if (subsets == name).any()}
    score = estimate(found["score"])
    return {
        "score": score.value,
        "f1": score.json(),
        "question_accuracy": estimate(found["accuracy"]).json(),
        "strict_accuracy": estimate(found["strict"]).json(),
        **_figures(lines, found),
        "by_kind": {
            name: {"pairs": len(of), "f1": estimate(theirs["score"]).json()} | _figures(of, theirs)
            for name, of in by.items()
            for theirs in [measures(of, paper_compat)]
        },
        **counts(lines, RULE, sum(line["strict"] is None for line in lines)),
    }


def _figures(lines: Sequence[Mapping[str, Any]], found: Mapping[str, Measure]) -> dict[str, Any]:
    """Accuracy, precision (none where nothing was said to be there), recall and the share of yes, with their errors."""
    said, right = _table(lines)
    told = {name: estimate(found[name]).json() for name in ("accuracy", "recall", "yes")}
    if said.any():
        precise = rate_by(labels_of(lines, "image_id").tolist(), (said & right).tolist(), said.tolist())
        told["precision"] = estimate(precise).json()
    return told


BENCHMARK = Benchmark(
    NAME,
    title="POPE, F1 of yes, mean of random, popular, adversarial",
    fetch="git clone https://huggingface.co/datasets/lmms-lab/POPE pope   (Git LFS; MIT, by AoiDragon/POPE, whose "
    "output/coco with COCO's val2014 serves as well; COCO's pictures have terms of their own)",
    read=read,
    answer=answer,
    measures=measures,
    summary=summary,
    headline="f1",
    shown={
        "f1": "F1",
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "yes": "share of yes",
        "strict_accuracy": "accuracy where just yes or no counts (lmms-eval)",
    },
)

"""MMHal-Bench (arXiv 2309.14525) from its release: ``response_template.json``, 96 questions of eight types, and ``images``.

A judge that sees no picture rates each answer from 0 to 6 by a person's answer and the objects in the picture: 3 and more, no
hallucination. The score is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ....basics.errors import UserError
from ....scores.statistics import Measure, estimate
from .choices import Item
from .judged import Values, about_judging, ask_freely, estimates_by, judged_mean, read_json
from .protocol import Benchmark, Judging, Lines
from .rows import check_pictures

NAME = "mmhal"
FILE = "response_template.json"
HALLUCINATES_BELOW = 3
"""Ratings below it say that there is a hallucination."""
_FIELDS = ("question_type", "image_src", "image_content", "question", "gt_answer")
_WHAT = "mmhal is the folder of MMHal-Bench's release."


def read(folder: Path) -> list[Item]:
    """The questions in the file's order; UserError for what is not the release."""
    records = read_json(folder / FILE, _WHAT)
    if not isinstance(records, list) or not records:
        raise UserError(f"{folder / FILE} holds no list of questions. {_WHAT}")
    items = [_item(record, number, folder) for number, record in enumerate(records)]
    check_pictures([item.image for item in items], folder)
    return items


def _item(record: Any, number: int, folder: Path) -> Item:
    if not isinstance(record, dict) or (absent := [name for name in _FIELDS if name not in record]):
        raise UserError(f"Question {number} of {folder / FILE} lacks {', '.join(absent) or 'everything'}. {_WHAT}")
    if not isinstance(record["image_content"], list):
        raise UserError(f"Question {number} of {folder / FILE}: image_content is no list. {_WHAT}")
    labels = {
        "reference": str(record["gt_answer"]),
        "contents": ", ".join(map(str, record["image_content"])),
        "type": str(record["question_type"]),
    }
    # It names where a picture came from; the release has it under the last part of that address.
    image = folder / "images" / PurePosixPath(str(record["image_src"])).name
    return Item(str(number), str(record["question"]), {}, "", image, labels)


def _hallucinates(values: Values) -> float:
    return float(values["rating"] < HALLUCINATES_BELOW)


def measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By question: ``score``, the mean rating, and ``hallucination``, the share rated below 3. Nothing before it is judged."""
    if not any(line.get("judgements") for line in lines):
        return {}
    return {
        "score": judged_mean(lines, lambda values: values["rating"], lambda values: 1.0),
        "hallucination": judged_mean(lines, _hallucinates),
    }


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """MMHal-Bench's part of eval.json. ``score`` is from 0 to 6."""
    told = about_judging(lines, lambda values: values["rating"], "of 6")
    found = measures(lines, paper_compat)
    if not found:
        return told
    return {
        "score": found["score"].value,
        "rating": estimate(found["score"]).json(),
        "hallucination": estimate(found["hallucination"]).json(),
        "by_type": estimates_by(lines, "type", measures),
        **told,
    }


BENCHMARK = Benchmark(
    NAME,
    title="MMHal-Bench, rating 0 to 6",
    fetch="git clone https://huggingface.co/datasets/Shengcao1006/MMHal-Bench mmhal   (Git LFS; Apache-2.0, by its hub card)",
    read=read,
    answer=partial(ask_freely, NAME),
    measures=measures,
    summary=summary,
    headline="rating",
    judging=Judging(("question", "reference", "contents", "answer"), {"rating": (0, 6)}, whole=True),
    plain=frozenset({"score"}),
)

"""MM-Vet (arXiv 2308.02490) from its release: ``mm-vet.json``, 218 questions of six capabilities, and ``images``.

A judge that sees no picture gives each answer a correctness from 0 to 1 by the reference, in which <AND> joins what must all be
said and <OR> what may be said. The score is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.shipped import is_inside
from ....scores.statistics import Measure, estimate
from .choices import Item
from .judged import about_judging, ask_freely, estimates_by, judged_mean, read_json
from .protocol import Benchmark, Judging, Lines
from .rows import check_pictures

NAME = "mm_vet"
FILE = "mm-vet.json"
_FIELDS = ("imagename", "question", "answer", "capability")
_WHAT = "mm_vet is the folder of MM-Vet's release."


def read(folder: Path) -> list[Item]:
    """The questions in the file's order; UserError for what is not the release."""
    records = read_json(folder / FILE, _WHAT)
    if not isinstance(records, dict) or not records:
        raise UserError(f"{folder / FILE} holds no questions by name. {_WHAT}")
    items = [_item(name, record, folder) for name, record in records.items()]
    check_pictures([item.image for item in items], folder)
    return items


def _item(name: str, record: Any, folder: Path) -> Item:
    if not isinstance(record, dict) or (absent := [field for field in _FIELDS if field not in record]):
        raise UserError(f"Question {name} of {folder / FILE} lacks {', '.join(absent) or 'everything'}. {_WHAT}")
    if not is_inside(record["imagename"]):
        raise UserError(
            f"Question {name} of {folder / FILE} names the image {record['imagename']!r}, outside of images."
        )
    if not isinstance(record["capability"], list):
        raise UserError(f"Question {name} of {folder / FILE}: capability is no list. {_WHAT}")
    reference = str(record["answer"]).replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    labels = {"reference": reference, "capability": ", ".join(map(str, record["capability"]))}
    return Item(name, str(record["question"]), {}, "", folder / "images" / record["imagename"], labels)


def measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By question: ``score``, the mean correctness. Nothing before it is judged."""
    if not any(line.get("judgements") for line in lines):
        return {}
    return {"score": judged_mean(lines, lambda values: values["score"])}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """MM-Vet's part of eval.json. ``score`` is from 0 to 1."""
    told = about_judging(lines, lambda values: values["score"], "of 1")
    found = measures(lines, paper_compat)
    if not found:
        return told
    return {
        "score": found["score"].value,
        "correctness": estimate(found["score"]).json(),
        "by_capability": estimates_by(lines, "capability", measures, several=True),
        **told,
    }


BENCHMARK = Benchmark(
    NAME,
    title="MM-Vet",
    fetch="wget https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip && unzip mm-vet.zip   (for non-commercial "
    "research, by its LICENSE_DATASET)",
    read=read,
    answer=partial(ask_freely, NAME),
    measures=measures,
    summary=summary,
    headline="correctness",
    judging=Judging(("question", "reference", "answer"), {"score": (0, 1)}),
)

"""ScienceQA (arXiv 2209.09513), test split: 4,241 questions, of which the 2,017 with a picture are ScienceQA-IMG, the score.

From the release (``problems.json``, ``pid_splits.json``, ``images/test/ID/``) or as parquet or arrow, as ScienceQA-IMG alone or
whole. The prompt is LLaVA's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....data.tables import items as json_items
from ....scores.statistics import Measure, estimate
from .asked import labels_of
from .choices import Item, ask_items, count_answers, marks
from .protocol import Benchmark
from .rows import check_pictures, need, picture, split_rows

NAME = "scienceqa"
AUTHORS_RULE = "first letter (S-VCO authors), questions without a picture too"


def read(folder: Path) -> list[Item]:
    """The questions of the test split in the file's order; those without a picture too, where the files have them."""
    image_only = folder / "ScienceQA-IMG"  # a clone of the hub's holds it beside the whole
    if (folder / "problems.json").is_file():
        rows = _problems(folder)
    else:
        rows = enumerated(split_rows(image_only if image_only.is_dir() else folder, "test", NAME))
    found = [_item(key, where, row, folder) for key, where, row in rows]
    if not any(item.image is not None for item in found):
        raise UserError(f"{folder} has no question about a picture; those are ScienceQA-IMG.")
    check_pictures([item.image for item in found], folder)
    return found


def enumerated(rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(key, where, row) of ``rows`` that have no key of their own: their number from 1."""
    return ((str(number), where, row) for number, (where, row) in enumerate(rows, 1))


def _problems(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    splits = dict(json_items(folder / "pid_splits.json")) if (folder / "pid_splits.json").is_file() else {}
    test = set(splits.get("test", ()))
    for key, problem in json_items(folder / "problems.json"):
        where = f"{folder / 'problems.json'}, problem {key}"
        if not isinstance(problem, dict):
            raise UserError(f"{where} is not an object.")
        if (key in test) if splits else problem.get("split") == "test":
            named = problem.get("image")
            yield str(key), where, problem | {"image": named and f"images/test/{key}/{named}"}


def _item(key: str, where: str, row: Mapping[str, Any], folder: Path) -> Item:
    need(row, where, "question", "choices", "answer")
    choices, answer = row["choices"], row["answer"]
    if not (isinstance(choices, list) and isinstance(answer, int) and 0 <= answer < len(choices)):
        raise UserError(f"{where}: the answer {answer!r} is no place among the choices {choices!r}.")
    options = {chr(ord("a") + place): str(text) for place, text in enumerate(choices)}
    context = f"Context: {row['hint']}\n" if row.get("hint") else ""
    listed = "\n".join(f"{key.upper()}. {text}" for key, text in options.items())
    image = picture(row, where, folder, "image", beside=["images/test"]) if row.get("image") else None
    labels = {"subject": str(row.get("subject") or ""), "grade": str(row.get("grade") or "")}
    labels["picture"] = "none" if image is None else "one"
    return Item(key, f"{context}{row['question']}\n{listed}", options, chr(ord("a") + answer), image, labels)


def first_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The rule of the S-VCO authors' grader: the first character, if it is a letter, is the option; "Answer: B" means A there."""
    found = re.match(r"[a-z]", answer.strip().lower())
    return found.group() if found and found.group() in options else None


def llava_letter(answer: str) -> str | None:
    """The letter that LLaVA's ``eval_science_qa.py`` takes: a capital alone, or with ". " behind it, or said once in "The answer
    is B."; lmms-eval's takes the first two, the first in any case and the second without a blank."""
    said = re.fullmatch(r"([A-E])|([A-E])\. .*", answer, re.DOTALL)
    if said:
        return (said.group(1) or said.group(2)).lower()
    behind = re.findall(r"The answer is ([A-Z]).", answer)
    return behind[0].lower() if len(behind) == 1 else None


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By question. ``score``: of those with a picture; as the authors evaluate, of all. ``all``: of all; ``llava``: of those with
    a picture by LLaVA's own rule."""
    right, images = np.array(marks(lines, paper_compat), dtype=bool), labels_of(lines, "picture") == "one"
    llava = np.array([llava_letter(line["answer"]) == line["right"] for line in lines], dtype=bool)
    found = {
        name: Measure.share(of) for name, of in (("images", right[images]), ("all", right), ("llava", llava[images]))
    }
    return {"score": found["all" if paper_compat else "images"], **found}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """ScienceQA's part of eval.json. ``score``: accuracy, from 0 to 1."""
    found = measures(lines, paper_compat)
    score = estimate(found["score"])
    images, right = labels_of(lines, "picture") == "one", np.array(marks(lines, paper_compat), dtype=bool)
    subjects = labels_of(lines, "subject")
    return {
        "score": score.value,
        "accuracy": score.json(),
        "image_accuracy": estimate(found["images"]).json(),
        "question_accuracy": estimate(found["all"]).json(),
        "llava_accuracy": estimate(found["llava"]).json(),
        "with_image": int(images.sum()),
        "by_kind": {
            name: {"pairs": int(of.sum()), "image_accuracy": estimate(Measure.share(right[of])).json()}
            for name in sorted(set(subjects[images].tolist()))
            for of in [images & (subjects == name)]
        },
        **count_answers(lines, paper_compat, authors=AUTHORS_RULE),
    }


BENCHMARK = Benchmark(
    NAME,
    title="ScienceQA-IMG",
    fetch="git clone https://huggingface.co/datasets/lmms-lab/ScienceQA scienceqa   (Git LFS; CC BY-NC-SA 4.0, by LICENSE-DATA "
    "of lupantech/ScienceQA, whose data/scienceqa with tools/download.sh serves as well)",
    read=read,
    answer=partial(ask_items, NAME, authors=first_letter),
    measures=measures,
    summary=summary,
    headline="accuracy",
    shown={
        "image_accuracy": "with a picture",
        "question_accuracy": "all",
        "llava_accuracy": "with a picture, by LLaVA's grader",
    },
)

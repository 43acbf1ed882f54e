"""MMVP (arXiv 2401.06209) from its release: ``Questions.csv`` and ``MMVP Images/{row}.jpg``, 300 questions in 150 pairs."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....scores.statistics import Measure, estimate
from .choices import Item, ask_items, check_images, count_answers, marks
from .protocol import Benchmark

NAME = "mmvp"
_COLUMNS = ("Question", "Options", "Correct Answer")
_OPTION = re.compile(r"\(([a-z])\)\s*(.*?)\s*(?=\([a-z]\)|$)", re.IGNORECASE | re.DOTALL)


def read(folder: Path) -> list[Item]:
    """The questions in the file's order; UserError for what is not the release."""
    path = folder / "Questions.csv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}). mmvp is the folder of MMVP's release.") from None
    if absent := [name for name in _COLUMNS if not rows or name not in rows[0]]:
        raise UserError(
            f"{path} has no column {', '.join(absent)}; MMVP's has Index, Question, Options, Correct Answer."
        )
    if len(rows) % 2:
        raise UserError(f"{path} has {len(rows)} questions; MMVP's come in pairs, rows 2k − 1 and 2k.")
    items = [_item(row, number, folder) for number, row in enumerate(rows, 1)]
    check_images(items, folder)
    return items


def _item(row: Mapping[str, str], number: int, folder: Path) -> Item:
    options = {key.lower(): text for key, text in _OPTION.findall(row["Options"])}
    right = row["Correct Answer"].strip().lower().strip("()")
    if right not in options:
        raise UserError(
            f"Row {number} of {folder / 'Questions.csv'}: the answer {right!r} is none of {row['Options']!r}."
        )
    image = folder / "MMVP Images" / f"{number}.jpg"
    return Item(str(number), f"{row['Question']} {row['Options']}", options, right, image, {})


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """``score``: the share of pairs with both questions right; ``questions``: of single questions, by pair."""
    right = np.array(marks(lines, paper_compat), dtype=float).reshape(-1, 2)
    return {"score": Measure.share(np.logical_and(right[:, 0], right[:, 1])), "questions": Measure.rate(right.mean(1))}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """MMVP's part of eval.json. ``score`` is the pair accuracy, from 0 to 1."""
    found = measures(lines, paper_compat)
    pairs = estimate(found["score"])
    return {
        "score": pairs.value,
        "pairs": len(lines) // 2,
        "pair_accuracy": pairs.json(),
        "question_accuracy": estimate(found["questions"]).json(),
        **count_answers(lines, paper_compat),
    }


BENCHMARK = Benchmark(
    NAME,
    title="MMVP, pairs",
    fetch="git clone https://huggingface.co/datasets/MMVP/MMVP mmvp   (MIT, by its hub card)",
    read=read,
    answer=partial(ask_items, NAME),
    measures=measures,
    summary=summary,
    headline="pair_accuracy",
)

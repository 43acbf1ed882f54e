"""HallusionBench (arXiv 2310.14566): 1,129 yes/no questions, 951 about a picture and 178 about none, in sets that vary both.

From the release (``HallusionBench.json`` and ``hallusion_bench/``) or the hub's parquet (splits ``image`` and ``non_image``). The
official grade is GPT-4's; here it is whether the answer has the word yes or no, for which the question asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....data.tables import rows
from ....scores.statistics import Measure, estimate
from ..generation import Question
from .asked import counts, labels_of, rate_by, say
from .protocol import Asking, Benchmark
from .rows import Picture, check_pictures, need, opener, picture, split_files, split_rows

NAME = "hallusionbench"
SUFFIX = "\nPlease answer yes or no."
RULE = "the word yes or no (VLMEvalKit), no GPT-4; neither of them is right where there is no picture (official)"
_FIELDS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer")


@dataclass(frozen=True)
class Read:
    """One question of HallusionBench."""

    question: str
    """Without ``SUFFIX``."""
    right: str
    """``yes`` or ``no``."""
    place: tuple[str, str, str, str, str]
    """category, subcategory, set, figure, question: what the figures are taken over."""
    visual_input: str
    """``0`` no picture, ``1`` an original, ``2`` an edited one."""
    image: Picture | None
    """The picture."""

    @property
    def key(self) -> str:
        """Its place as one word."""
        return "_".join(self.place)


def read(folder: Path) -> list[Read]:
    """The questions in the file's order, of the hub's those about a picture first; those about none where the files have them."""
    found = [_item(where, row, folder) for where, row in _rows(folder)]
    if not found:
        raise UserError(f"{folder} holds no question. {NAME} is the folder of HallusionBench's release.")
    if len({item.key for item in found}) < len(found):
        raise UserError(f"{folder} has questions twice (category, subcategory, set, figure, question).")
    check_pictures([item.image for item in found], folder)
    return found


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if (folder / "HallusionBench.json").is_file():
        yield from rows(folder / "HallusionBench.json")
        return
    yield from split_rows(folder, "image", NAME)
    if split_files(folder, "non_image"):
        yield from split_rows(folder, "non_image", NAME)


def _item(where: str, row: Mapping[str, Any], folder: Path) -> Read:
    need(row, where, *_FIELDS)
    right = {"0": "no", "1": "yes"}.get(str(row["gt_answer"]).strip())
    if right is None or row["category"] not in ("VD", "VS") or str(row["visual_input"]) not in "012":
        raise UserError(
            f"{where}: gt_answer {row['gt_answer']!r}, category {row['category']!r}, visual_input {row['visual_input']!r}; that "
            "is not HallusionBench's form."
        )
    image = None
    if str(row["visual_input"]) != "0":
        image = picture(row, where, folder, "image", "filename", beside=["hallusion_bench"])
    place = tuple(str(row[name]) for name in ("category", "subcategory", "set_id", "figure_id", "question_id"))
    return Read(str(row["question"]).strip(), right, place, str(row["visual_input"]), image)  # type: ignore[arg-type]


def yes_or_no(answer: str) -> str | None:
    """The one of the words that the answer has; None for neither and for both."""
    words = set(re.findall(r"[^\W_]+", answer.lower()))
    return next((word for word, other in (("yes", "no"), ("no", "yes")) if word in words and other not in words), None)


def answer(items: Sequence[Read], asking: Asking) -> list[dict[str, Any]]:
    """A line: :func:`say`'s, ``right``, ``place``, ``visual_input``, ``said`` (null: neither word, or both). A collective."""
    questions = [Question(item.key, item.question + SUFFIX, opener(item.image, item.key)) for item in items]
    return [
        line
        | {
            "right": item.right,
            "place": list(item.place),
            "visual_input": item.visual_input,
            "said": yes_or_no(line["answer"]),
        }
        for item, line in zip(items, say(NAME, questions, asking), strict=True)
    ]


def right_ones(lines: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(N,) bool: whether each answer is right. As the official code has it, one that is neither yes nor no is right where there
    is no picture; an empty one is not."""
    return np.array(
        [
            line["said"] == line["right"]
            or (line["said"] is None and line["visual_input"] == "0" and bool(line["answer"].strip()))
            for line in lines
        ],
        dtype=bool,
    )


def _together(right: np.ndarray, groups: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[bool]]:
    """The groups of questions, and whether all of each are right."""
    found: dict[tuple[str, ...], bool] = {}
    for good, group in zip(right.tolist(), groups, strict=True):
        found[group] = found.get(group, True) and good
    return list(found), list(found.values())


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By set, whose pictures and questions belong together. ``score``: the share of right answers (aAcc); ``questions``: of the
    questions right under all their pictures (qAcc); ``figures``: of the pictures with all their questions right (fAcc);
    ``images``: of right answers about a picture."""
    right, places = right_ones(lines), [tuple(line["place"]) for line in lines]
    sets = sorted({place[:3] for place in places})
    asked, both = _together(right, [(*place[:3], place[4]) for place in places])
    shown = labels_of(lines, "visual_input") != "0"
    figures, whole = _together(right[shown], [place[:4] for place, seen in zip(places, shown, strict=True) if seen])

    def by_set(groups: Sequence[tuple[str, ...]], good: Sequence[bool]) -> Measure:
        # Every measure over the same sets, so that two models are compared set by set.
        empty = [(one, 0.0, 0.0) for one in sets]
        units = [*empty, *((group[:3], float(hit), 1.0) for group, hit in zip(groups, good, strict=True))]
        return rate_by([unit for unit, _, _ in units], [hit for _, hit, _ in units], [case for _, _, case in units])

    return {
        "score": by_set(places, right.tolist()),
        "questions": by_set(asked, both),
        "figures": by_set(figures, whole),
        "images": by_set([place for place, seen in zip(places, shown, strict=True) if seen], right[shown].tolist()),
    }


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """HallusionBench's part of eval.json. ``score``: aAcc, from 0 to 1."""
    found = {name: estimate(measure) for name, measure in measures(lines, paper_compat).items()}
    said = labels_of(lines, "said")
    return {
        "score": found["score"].value,
        "aAcc": found["score"].json(),
        "qAcc": found["questions"].json(),
        "fAcc": found["figures"].json(),
        "image_accuracy": found["images"].json(),
        "with_image": int((labels_of(lines, "visual_input") != "0").sum()),
        "yes": float((said == "yes").mean()),
        **counts(lines, RULE, sum(line["said"] is None for line in lines)),
    }


BENCHMARK = Benchmark(
    NAME,
    title="HallusionBench, aAcc",
    fetch="git clone https://huggingface.co/datasets/lmms-lab/HallusionBench hallusionbench   (Git LFS; BSD 3-Clause, by "
    "tianyi-lab/HallusionBench, whose HallusionBench.json with hallusion_bench.zip serves as well)",
    read=read,
    answer=answer,
    measures=measures,
    summary=summary,
    headline="aAcc",
    shown={
        "aAcc": "aAcc, answers",
        "qAcc": "qAcc, questions under all their pictures",
        "fAcc": "fAcc, pictures with all their questions",
        "image_accuracy": "answers about a picture",
    },
)

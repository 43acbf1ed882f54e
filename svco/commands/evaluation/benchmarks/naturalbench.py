"""NaturalBench (arXiv 2410.14669) from its release, by log-probabilities: 1,900 samples of two images and two questions, each of
which has one answer for the one image and the other for the other.

A question is a pair: its two answers under both images. The model's answer is the likelier of the two, each a whole response
(Yes or No, the letter A or B, and the end of the turn) to the question with the release's suffix. The release's own way, where an
answer is generated and read, is ``naturalbench_generated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....basics.views import CLASH, MATCH
from ....scores.measures import NAMES, matched
from ....scores.pair_scores import without_prior
from ....scores.statistics import Measure
from .paired import PairItem, by, count_pairs, estimates, logps_of, score_items, texts
from .protocol import Benchmark, Lines
from .rows import Picture, check_pictures, need, picture, split_rows

NAME = "naturalbench"
FETCH = "git clone https://huggingface.co/datasets/BaiqiL/NaturalBench naturalbench   (Git LFS; Apache-2.0, by its hub card)"
SUFFIXES = {
    "yes_no": "Please answer Yes or No.",
    "multiple_choice": "Please output the letter corresponding to the correct option.",
}
"""Question type -> what its evaluation (Baiqi-Li/NaturalBench@9967605) puts right behind a question."""
ANSWERS = {"yes_no": ("Yes", "No"), "multiple_choice": ("A", "B")}
"""Question type -> its two answers."""
SHOWN = {
    "g_acc": "G_Acc, all four answers of a sample",
    "q_acc": "Q_Acc, both answers to a question",
    "i_acc": "I_Acc, both answers about an image",
    "acc": "Acc, single answers",
}
"""Its figures -> how the page calls them."""
_BY_LIKELIHOOD = {"g_acc_corrected": "G_Acc, no prior", "image_accuracy": f"{NAMES['image_accuracy']}, of questions"}


@dataclass(frozen=True)
class Sample:
    """Two images and two questions."""

    name: str
    """Its number in the release."""
    kind: str
    """Key of ``SUFFIXES``."""
    questions: tuple[str, str]
    """With the suffix."""
    answers: tuple[tuple[str, str], tuple[str, str]]
    """Of each question, the one true of image 0 and the one true of image 1."""
    images: tuple[Picture, Picture]
    """The images."""
    source: str
    """Where they are from."""


def read_samples(folder: Path) -> list[Sample]:
    """The samples in the files' order; UserError for what is not the release."""
    samples = [_sample(where, row, folder) for where, row in split_rows(folder, "train", NAME)]
    check_pictures([image for sample in samples for image in sample.images], folder)
    return samples


def _sample(where: str, row: Mapping[str, Any], folder: Path) -> Sample:
    need(row, where, "Index", "Image_0", "Image_1")
    first, second, kind = texts(row, where, "Question_0", "Question_1", "Question_Type")
    if kind not in SUFFIXES:
        raise UserError(f"{where}: Question_Type is {kind!r}; NaturalBench's are {', '.join(SUFFIXES)}.")
    spelt = {answer.lower(): answer for answer in ANSWERS[kind]}
    answers = []
    for question in (0, 1):
        names = [f"Image_{image}_Question_{question}" for image in (0, 1)]
        given = [spelt.get(text.strip().lower(), "") for text in texts(row, where, *names)]
        if set(given) != set(ANSWERS[kind]):
            said = " and ".join(repr(row[name]) for name in names)
            raise UserError(
                f"{where}: {' and '.join(names)} are {said}; of a {kind} question one is {' and one '.join(spelt)}."
            )
        answers.append((given[0], given[1]))
    images = picture(row, where, folder, "Image_0"), picture(row, where, folder, "Image_1")
    suffix, source = SUFFIXES[kind], str(row.get("Source") or "")
    return Sample(str(row["Index"]), kind, (first + suffix, second + suffix), (answers[0], answers[1]), images, source)


def read(folder: Path) -> list[PairItem]:
    """A pair a question, the two of a sample behind each other."""
    return [
        PairItem(
            f"{sample.name}-{number}",
            sample.questions[number],
            sample.answers[number],
            sample.images,
            {"sample": sample.name, "question": number, "kind": sample.kind, "source": sample.source},
        )
        for sample in read_samples(folder)
        for number in (0, 1)
    ]


def official(right: np.ndarray) -> dict[str, Measure]:
    """NaturalBench's four figures by sample, of ``right`` (S, 2, 2) bool: question, image."""
    return {
        "g_acc": Measure.share(np.all(right, axis=(1, 2))),
        "q_acc": Measure.rate(right.all(2).mean(1)),
        "i_acc": Measure.rate(right.all(1).mean(1)),
        "acc": Measure.rate(right.mean((1, 2))),
    }


def likelier(logps: np.ndarray) -> np.ndarray:
    """(S, 2, 2) bool, question and image, of log-probabilities (2 S, 2, 3): under image s side s's answer is the likelier."""
    right = [logps[:, side, MATCH] > logps[:, 1 - side, CLASH] for side in (0, 1)]
    return np.stack(right, axis=1).reshape(-1, 2, 2)


def _measured(lines: Lines) -> dict[str, Measure]:
    logps = logps_of(lines)
    images = matched(logps)["image_accuracy"].numerator.reshape(-1, 2).mean(1)
    return {
        **official(likelier(logps)),
        "g_acc_corrected": official(likelier(without_prior(logps)))["g_acc"],
        "image_accuracy": Measure.rate(images),
    }


def measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By sample. ``score``: G_Acc; beside it NaturalBench's four, G_Acc without the language prior, and how often both answers to
    a question are likelier under their own image (Winoground's image score)."""
    found = _measured(lines)
    return {"score": found["g_acc"], **found}


def summary(lines: Lines, paper_compat: bool) -> dict[str, Any]:
    """NaturalBench's part of eval.json. ``score`` is G_Acc, from 0 to 1."""
    found = _measured(lines)
    rule = "the likelier of the two answers, each with the end of the turn"
    return {
        "score": found["g_acc"].value,
        "samples": len(lines) // 2,
        **estimates(found),
        "by_kind": by(np.array([line["kind"] for line in lines[::2]]), found),
        **count_pairs(lines, rule),
    }


BENCHMARK = Benchmark(
    NAME,
    title="NaturalBench, G_Acc (log-probabilities)",
    fetch=FETCH,
    read=read,
    answer=partial(score_items, NAME),
    measures=measures,
    summary=summary,
    headline="g_acc",
    shown=SHOWN | _BY_LIKELIHOOD,
)

"""RealWorldQA (xAI), test split: 765 questions that say themselves how they want to be answered, by letter, word or number.

The score is by lmms-eval's rule (0.7): of multiple choice its extractor of a letter, of the rest the whole answer, in any case
and without a full stop. ``exact`` compares the whole answer of both kinds so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....data.tables import rows
from ....scores.statistics import Measure, estimate
from ..generation import Question
from .asked import counts, say
from .choices import Item
from .protocol import Asking, Benchmark
from .rows import check_pictures, need, opener, picture, split_files, split_rows

NAME = "realworldqa"
RULE = "lmms-eval 0.7: its letter, or the whole answer"
AUTHORS_RULE = "first four characters, or the whole answer (S-VCO authors)"
LETTERS = "ABCD"
_BY_LETTER = "answer directly with only the letter of the correct option and nothing else"
"""By which the authors' grader knows multiple choice; lmms-eval knows it by an answer that is a letter."""
_SAID = (
    *(
        "the answer is",
        "answer is",
        "the correct answer is",
        "correct answer is",
        "the best answer is",
        "best answer is",
    ),
    *(
        "the correct option is",
        "correct option is",
        "the best option is",
        "best option is",
        "the choice is",
        "choice is",
    ),
    *("the correct choice is", "correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is"),
)
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
"""How a letter may stand in an answer, and how much that counts."""


def read(folder: Path) -> list[Item]:
    """The questions of the test split (hub: parquet) or of ``annotations.json`` with ``images``."""
    if split_files(folder, "test"):
        found: Iterator[tuple[str, dict[str, Any]]] = split_rows(folder, "test", NAME)
    elif (folder / "annotations.json").is_file():
        found = rows(folder / "annotations.json")
    else:
        found = split_rows(folder, "test", NAME)  # which says what is missing
    items = [_item(str(number), where, row, folder) for number, (where, row) in enumerate(found, 1)]
    if not items:
        raise UserError(f"{folder} holds no question. {NAME} is the folder of RealWorldQA's release.")
    check_pictures([item.image for item in items], folder)
    return items


def _item(key: str, where: str, row: Mapping[str, Any], folder: Path) -> Item:
    row = {"question": row.get("text"), **row}  # as the S-VCO authors' copy calls it
    need(row, where, "question", "answer")
    image = picture(row, where, folder, "image", "image_path", beside=["images"])
    return Item(key, str(row["question"]).strip(), {}, str(row["answer"]).strip(), image, {})


def lmms_letter(answer: str) -> str:
    """The letter that lmms-eval's ``extract_mcq_answer`` finds in an answer, or nothing: capitals alone; of several the one that
    stands in the most telling form, and of those the last."""
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    bare, text = text.strip(), f" {text} "
    found: list[tuple[int, int, str]] = []
    for form, weight in _FORMS:
        found += [(weight, place, key) for key in LETTERS if (place := text.rfind(form.format(key))) >= 0]
    lower = text.lower()
    for phrase in _SAID:
        if (place := lower.find(phrase)) >= 0:
            behind = ((text.find(key, place + len(phrase)), key) for key in LETTERS)
            found += [(7, at, key) for at, key in behind if at >= 0]
    for key in LETTERS:
        if re.match(rf"{key}(?![^\W\d_])", bare):
            found.append((10, 0, key))
        if re.search(rf"(?<![^\W\d_]){key}\Z", bare):
            found.append((9, len(text) - 1, key))
    if not found:
        found = [(0, text.rfind(key), key) for key in LETTERS if key in text]
    return max(found, key=lambda candidate: candidate[:2])[2] if found else ""


def lmms_right(answer: str, right: str) -> bool:
    """lmms-eval's grade."""
    if right.upper() in LETTERS:
        return lmms_letter(answer) == right.upper()
    return exactly(answer, right)


def exactly(answer: str, right: str) -> bool:
    """The whole answer, in any case and without full stops at its end."""
    return answer.lower().strip().rstrip(".") == right.lower()


def authors_right(query: str, answer: str, right: str) -> bool:
    """The S-VCO authors' grade: without parentheses, white space and full stops; of multiple choice the first four characters."""
    said = answer.strip().lower()
    said = said[:4] if _BY_LETTER in query.lower() else said
    return re.sub(r"[()\s.]", "", said) == re.sub(r"[()\s.]", "", right.strip().lower())


def answer(items: Sequence[Item], asking: Asking) -> list[dict[str, Any]]:
    """A line: :func:`say`'s and ``right``. A collective."""
    questions = [Question(item.name, item.prompt, opener(item.image, item.name)) for item in items]
    return [line | {"right": item.right} for item, line in zip(items, say(NAME, questions, asking), strict=True)]


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By question. ``score``: by lmms-eval's rule, or as the authors grade; ``exact``; ``letters`` and ``words``: the score of
    multiple choice and of the rest."""
    right = [
        authors_right(line["query"], line["answer"], line["right"])
        if paper_compat
        else lmms_right(line["answer"], line["right"])
        for line in lines
    ]
    grades, choice = (
        np.array(right, dtype=bool),
        np.array([line["right"].upper() in LETTERS for line in lines], dtype=bool),
    )
    found = {"score": Measure.share(grades)}
    found["exact"] = Measure.share(np.array([exactly(line["answer"], line["right"]) for line in lines], dtype=bool))
    for name, of in (("letters", choice), ("words", ~choice)):
        if of.any():
            found[name] = Measure.share(grades[of])
    return found


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """RealWorldQA's part of eval.json. ``score``: accuracy, from 0 to 1."""
    found = {name: estimate(measure) for name, measure in measures(lines, paper_compat).items()}
    unsaid = sum(line["right"].upper() in LETTERS and not lmms_letter(line["answer"]) for line in lines)
    return {
        "score": found["score"].value,
        "accuracy": found.pop("score").json(),
        **{name: value.json() for name, value in found.items()},
        **counts(lines, AUTHORS_RULE if paper_compat else RULE, unsaid),
    }


BENCHMARK = Benchmark(
    NAME,
    title="RealWorldQA",
    fetch="git clone https://huggingface.co/datasets/xai-org/RealworldQA realworldqa   (Git LFS; CC BY-ND 4.0, by its hub card)",
    read=read,
    answer=answer,
    measures=measures,
    summary=summary,
    headline="accuracy",
    shown={
        "accuracy": "accuracy",
        "exact": "the whole answer",
        "letters": "multiple choice",
        "words": "words and numbers",
    },
)

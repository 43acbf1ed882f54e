"""TextVQA (arXiv 1904.08920), validation split: 5,000 questions with ten answers each; VQA accuracy by the official rule.

From the release (``TextVQA_0.5.1_val.json`` and ``train_images/``) or the hub's parquet. The prompt is LLaVA's, without OCR
tokens, as lmms-eval's; with them, as LLaVA's files and the S-VCO authors' have it, it is ``textvqa_ocr``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....data.tables import items as json_items
from ....data.tables import rows
from ....scores.statistics import Measure, estimate
from ..generation import Question
from .asked import counts, labels_of, rate_by, say
from .protocol import Asking, Benchmark
from .rows import Picture, check_pictures, need, opener, picture, split_rows

NAME = "textvqa"
SUFFIX = "\nAnswer the question using a single word or phrase."
ANSWERS = 10
"""People's answers to each question."""
_OCR_LINE = re.compile(r"\nReference OCR token: ?(.*?)\n")
"""Where LLaVA's ``llava_textvqa_val_v051_ocr.jsonl`` has the tokens of a question."""
_SPACED = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_WHOLE = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """What lacks one of its apostrophes (its only one) -> the word with all of them."""
    found = {"somebody'd": "somebodyd", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at"}
    for word in _WHOLE.split():
        found |= {word[:at] + word[at + 1 :]: word for at, mark in enumerate(word) if mark == "'"}
    return found


_CONTRACTIONS = _contractions()


@dataclass(frozen=True)
class Read:
    """One question of TextVQA."""

    key: str
    """Its number in the release."""
    prompt: str
    """As the model is asked."""
    answers: tuple[str, ...]
    """What ten people said."""
    image_id: str
    """Its picture's name: pictures were drawn, not questions."""
    image: Picture
    """The picture."""


def read(folder: Path, ocr: bool = False) -> list[Read]:
    """The questions of the validation split; with ``ocr`` their tokens too: the row's own, of LLaVA's file, or Rosetta's."""
    tokens = _tokens(folder) if ocr else {}
    found = [_item(where, row, folder, tokens, ocr) for where, row in _rows(folder)]
    if not found:
        raise UserError(f"{folder} holds no question. {NAME} is the folder of TextVQA's release.")
    check_pictures([item.image for item in found], folder)
    return found


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not (official := sorted(folder.glob("TextVQA_0.5.1_val.json"))):
        yield from split_rows(folder, "validation", NAME)
        return
    data = dict(json_items(official[0])).get("data")
    if not isinstance(data, list):
        raise UserError(f"{official[0]} has no list 'data'. Is it TextVQA's annotation file?")
    for number, row in enumerate(data):
        yield f"{official[0]}, question {number}", row if isinstance(row, dict) else {}


def _tokens(folder: Path) -> dict[tuple[str, str] | str, str]:
    """{(picture, question): its line of tokens} of LLaVA's file, else {picture: its} of Rosetta's, else nothing."""
    llava = sorted(folder.glob("llava_textvqa_val_v051_ocr.jsonl"))
    if llava:
        asked = [(row, _OCR_LINE.search(str(row.get("text")))) for _, row in rows(llava[0])]
        return {
            (str(row.get("question_id")), str(row["text"]).split("\n")[0].lower()): line.group(1)
            for row, line in asked
            if line
        }
    rosetta = sorted(folder.glob("TextVQA_Rosetta_OCR*_val.json"))
    data = dict(json_items(rosetta[0])).get("data", []) if rosetta else []
    return {str(row["image_id"]): ", ".join(row["ocr_tokens"]) for row in data}


def _item(where: str, row: Mapping[str, Any], folder: Path, tokens: Mapping[Any, str], ocr: bool) -> Read:
    need(row, where, "question", "question_id", "image_id", "answers")
    answers = tuple(map(str, row["answers"]))
    if len(answers) != ANSWERS:
        raise UserError(f"{where} has {len(answers)} answers; TextVQA's have {ANSWERS}.")
    question, name = str(row["question"]), str(row["image_id"])
    prompt = question.capitalize()
    if ocr:
        own = ", ".join(row["ocr_tokens"]) if row.get("ocr_tokens") is not None else None
        line = tokens.get((name, question.lower()), tokens.get(name, own))
        if line is None:
            raise UserError(
                f"{where} has no OCR tokens, and {folder} no llava_textvqa_val_v051_ocr.jsonl or "
                "TextVQA_Rosetta_OCR_v0.2_val.json with them. Without them it is the benchmark textvqa."
            )
        prompt += f"\nReference OCR token: {line}"
    image = picture({"image": f"{name}.jpg", **row}, where, folder, "image", beside=["train_images"])
    return Read(str(row["question_id"]), prompt + SUFFIX, answers, name, image)


def normalised(answer: str) -> str:
    """An answer as EvalAI compares it (mmf's ``EvalAIAnswerProcessor``): lower case, without marks and articles, numbers as
    digits, apostrophes where they belong."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    bare = text
    for mark in _SPACED:
        bare = bare.replace(mark, "" if f"{mark} " in text or f" {mark}" in text else " ")
    bare = re.sub(
        r"\.(?!\d)", "", bare, count=32
    )  # 32 is re.UNICODE, which the official code gives where a count stands
    words = (_NUMBERS.get(word, word) for word in bare.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def accuracy(answer: str, answers: Sequence[str]) -> float:
    """VQA accuracy, from 0 to 1: the mean over each person left out of min(1, others who said it / 3)."""
    said, theirs = normalised(answer), [normalised(other) for other in answers]
    same = theirs.count(said)
    return sum(min(1.0, (same - (other == said)) / 3) for other in theirs) / len(theirs)


def answer(items: Sequence[Read], asking: Asking, name: str = NAME) -> list[dict[str, Any]]:
    """A line: :func:`say`'s, ``right`` (the ten answers), ``image_id`` and ``accuracy``. A collective."""
    questions = [Question(item.key, item.prompt, opener(item.image, item.key)) for item in items]
    return [
        line
        | {
            "right": list(item.answers),
            "image_id": item.image_id,
            "accuracy": accuracy(line["answer"], item.answers) if line["asked"] else 0.0,
        }
        for item, line in zip(items, say(name, questions, asking), strict=True)
    ]


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By picture, of which several questions may be asked. ``score``: VQA accuracy, in which the authors agree."""
    return {"score": rate_by(labels_of(lines, "image_id").tolist(), [line["accuracy"] for line in lines])}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool, ocr: bool = False) -> dict[str, Any]:
    """TextVQA's part of eval.json. ``score``: VQA accuracy, from 0 to 1."""
    found = estimate(measures(lines, paper_compat)["score"])
    rule = f"VQA accuracy (EvalAI), {'with' if ocr else 'without'} OCR tokens in the prompt"
    return {"score": found.value, "vqa_accuracy": found.json(), **counts(lines, rule)}


_FETCH = (
    "git clone https://huggingface.co/datasets/lmms-lab/textvqa {}   (Git LFS; terms: textvqa.org; TextVQA_0.5.1_val.json{} with "
    "train_images of train_val_images.zip, from dl.fbaipublicfiles.com/textvqa, serve as well)"
)


def made(name: str, ocr: bool) -> Benchmark:
    """TextVQA with or without OCR tokens in the prompt."""
    return Benchmark(
        name,
        title=f"TextVQA val, {'with' if ocr else 'without'} OCR tokens",
        fetch=_FETCH.format(name, ", TextVQA_Rosetta_OCR_v0.2_val.json" if ocr else ""),
        read=partial(read, ocr=ocr),
        answer=partial(answer, name=name),
        measures=measures,
        summary=partial(summary, ocr=ocr),
        headline="vqa_accuracy",
    )


BENCHMARK = made(NAME, ocr=False)

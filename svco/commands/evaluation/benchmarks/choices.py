"""Multiple-choice benchmarks: what is asked, which option an answer means, and the files of both."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....basics.errors import UserError
from ....basics.strict_json import json_lines
from ....data.pictures import decode_image, picture_file
from ..generation import Question, ask
from .protocol import Asking

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
"""What the authors' evaluators, and LLaVA's before them, put behind a multiple-choice question."""
_MARKED = re.compile(r"\(([a-z])\)|([a-z])(?:[.:,)\s]*$|[.:,)]\s)")
"""A letter in parentheses, alone, or with a mark behind it, at the start."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    name: str
    """Its number in the release."""
    prompt: str
    """Question and choices, without ``SUFFIX``."""
    options: Mapping[str, str]
    """Lower-case letter -> text."""
    right: str
    """The right letter."""
    image: Path | bytes
    """The image file, or its bytes."""
    labels: Mapping[str, str]
    """What scores are told apart by: source, task."""


def letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that ``answer`` means; None when it says none.

    What follows "answer is" or "answer:" counts, if that is said; then the answer is an option's letter (``B``, ``(B)``, ``B.``,
    ``(B) two``) or the whole text of an option. Cambrian's own rule for these benchmarks (cambrian-mllm/cambrian, eval/),
    without its taking the first character of any longer text.
    """
    text = re.split(r"answer is:?|answer:", answer.lower())[-1].strip()
    found = _MARKED.match(text)
    chosen = (found.group(1) or found.group(2)) if found else None
    if chosen in options:
        return chosen
    bare = text.rstrip(".:,").removeprefix("(").removesuffix(")").strip()
    return next((key for key, option in options.items() if option.lower().strip().rstrip(".") == bare), None)


def first_four(answer: str, options: Mapping[str, str]) -> str | None:
    """The rule of the S-VCO authors' graders: the first four characters, without parentheses and white space, are the letter.
    ``B.`` is no answer there."""
    text = re.sub(r"[()\s]", "", answer.strip().lower()[:4])
    return text if text in options else None


def ask_items(what: str, items: Sequence[Item], asking: Asking) -> list[dict[str, Any]]:
    """Asks every item; the lines of the answers file, in order, on every rank. A collective.

    A line: name, prompt, right, answer, ``asked`` (false: the image could not be read, which counts as wrong), ``letter`` and
    ``authors_letter`` (null: none was said), and the labels.
    """
    questions = [Question(item.name, item.prompt + SUFFIX, opener(item)) for item in items]
    answers = ask(
        asking.subject,
        questions,
        asking.world,
        max_new_tokens=asking.max_new_tokens,
        at_once=asking.effort.answers,
        show=asking.show,
        what=what,
    )
    if unread := [item.name for item, answer in zip(items, answers, strict=True) if answer is None]:
        warnings.warn(
            f"{len(unread)} questions of {what} could not be asked and count as wrong: their image cannot be read, or their "
            f"text holds a special token of the base: {', '.join(unread[:10])}",
            stacklevel=2,
        )
    return [
        {
            "key": item.name,
            "query": item.prompt + SUFFIX,
            "right": item.right,
            "answer": answer or "",
            "asked": answer is not None,
            "letter": letter(answer or "", item.options),
            "authors_letter": first_four(answer or "", item.options),
            **item.labels,
        }
        for item, answer in zip(items, answers, strict=True)
    ]


def marks(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> list[bool]:
    """Whether each answer is right, by Cambrian's rule, or with ``paper_compat`` by the authors'."""
    rule = "authors_letter" if paper_compat else "letter"
    return [line[rule] == line["right"] for line in lines]


def count_answers(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """What every benchmark's part of eval.json has beside its scores: how many answers could be used, by which rule."""
    rule = "authors_letter" if paper_compat else "letter"
    return {
        "questions": len(lines),
        "unparseable": sum(line[rule] is None for line in lines),
        "empty": sum(not line["answer"] for line in lines),
        "not_asked": sum(not line.get("asked", True) for line in lines),
        "rule": "first four characters (S-VCO authors)" if paper_compat else "letter or whole option (Cambrian)",
    }


def check_images(items: Sequence[Item], folder: Path) -> None:
    """UserError when images of the release are not there."""
    missing = [item.image for item in items if isinstance(item.image, Path) and not item.image.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(items)} images of {folder} are missing, e.g. {missing[0]}. Is the release whole?"
        )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; UserError if it is damaged."""
    try:
        return [json.loads(line) for _, line in json_lines(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as lines of JSON: {error}.") from None


def opener(item: Item) -> Callable[[], Image]:
    """What opens the image of ``item``, RGB; BadSample if it cannot be read."""

    def opened() -> Image:
        data = item.image if isinstance(item.image, bytes) else picture_file(item.image)
        return decode_image(data, f"the image of question {item.name}")

    return opened

"""Multiple-choice benchmarks: what is asked, which option an answer means, and the files of both."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.strict_json import json_lines
from ..generation import Question
from .asked import counts, say
from .protocol import Asking
from .rows import Picture, opener

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
"""What the authors' evaluators, and LLaVA's before them, put behind a multiple-choice question."""
LETTER_RULE = "letter or whole option (Cambrian)"
"""What ``letter`` is called where a figure names its rule."""
_MARKED = re.compile(r"\(([a-z])\)|([a-z])(?:[.:,)\s]*$|[.:,)]\s)")
"""A letter in parentheses, alone, or with a mark behind it, at the start."""
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{)?([^{}]*)\}")
_DRESS = re.compile(r"[*_`$\"“”]|</?answer>")
"""Marks by which models set an answer off: bold, code, formula, quotes, tags."""
_BRACKETS = str.maketrans("[]{}", "()()")
_DENIED = re.compile(
    r"\(?[a-z]\)?[.:,)]?\s*(?:is|was|are|can)(?:n't|not|\s+(?:not|wrong|incorrect|false|ruled out))\b[^.!?\n]*[.!?\n]?"
)
"""An option that is named to say that it is not the one, as far as its sentence goes."""
_LAST = re.compile(r"(?:^|[.!?:\n])\s*(?:\(([a-z])\)|([a-z]))[.!]?$")
"""A letter that is the whole of the last sentence."""


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
    image: Picture | None
    """Its picture; None of a question about none."""
    labels: Mapping[str, str]
    """What scores are told apart by: source, task."""


Rule = Callable[[str, Mapping[str, str]], str | None]
"""(answer, options) -> the letter of the option that is meant; None when none is."""


def letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that ``answer`` means; None when it says none.

    What follows "answer is" or "answer:" counts, if that is said, and of a ``\\boxed{}`` its content; then the answer is an
    option's letter (``B``, ``(B)``, ``B.``, ``(B) two``, ``**B**``) or the whole text of an option. Cambrian's own rule for these
    benchmarks (cambrian-mllm/cambrian, eval/), without its taking the first character of any longer text, and with bold, code,
    formulas, quotes and brackets taken off. An option that is named to be denied (``(A) is wrong.``) is passed over, and a letter
    that is the whole last sentence goes before one that begins the answer, unless that one's own text follows it.
    """
    boxed = _BOXED.findall(answer)
    text = _bare(boxed[-1]) if boxed else re.split(r"answer is:?|answer:", _bare(answer))[-1].strip()
    while denied := _DENIED.match(text):
        text = text[denied.end() :].strip()
    found, last = _MARKED.match(text), _LAST.search(text)
    chosen, final = _said(found), _said(last)
    if final in options and not (found and last and (last.start() < found.end() or _follows(text, found, options))):
        return final
    if chosen in options:
        return chosen
    return next((key for key, option in options.items() if _plain(option) == _plain(text)), None)


def _bare(text: str) -> str:
    return _DRESS.sub("", text.lower()).translate(_BRACKETS).strip()


def _plain(text: str) -> str:
    return _bare(text).rstrip(".:,").removeprefix("(").removesuffix(")").strip()


def _said(found: re.Match[str] | None) -> str | None:
    return (found.group(1) or found.group(2)) if found else None


def _follows(text: str, found: re.Match[str], options: Mapping[str, str]) -> bool:
    return _plain(text[found.end() :]) == _plain(options.get(_said(found) or "", ""))


def first_four(answer: str, options: Mapping[str, str]) -> str | None:
    """The rule of the S-VCO authors' graders: the first four characters, without parentheses and white space, are the letter.
    ``B.`` is no answer there."""
    text = re.sub(r"[()\s]", "", answer.strip().lower()[:4])
    return text if text in options else None


def ask_items(
    what: str, items: Sequence[Item], asking: Asking, *, suffix: str = SUFFIX, authors: Rule = first_four
) -> list[dict[str, Any]]:
    """Asks every item; the lines of the answers file, in order, on every rank. A collective.

    A line: :func:`say`'s, right, ``letter`` and ``authors_letter`` (null: none was said; the one by the rule ``authors``), and
    the labels.
    """
    questions = [Question(item.name, item.prompt + suffix, opener(item.image, item.name)) for item in items]
    return [
        line
        | {
            "right": item.right,
            "letter": letter(line["answer"], item.options),
            "authors_letter": authors(line["answer"], item.options),
            **item.labels,
        }
        for item, line in zip(items, say(what, questions, asking), strict=True)
    ]


def marks(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> list[bool]:
    """Whether each answer is right, by ``letter``, or with ``paper_compat`` by the authors' rule."""
    rule = "authors_letter" if paper_compat else "letter"
    return [line[rule] == line["right"] for line in lines]


def count_answers(
    lines: Sequence[Mapping[str, Any]],
    paper_compat: bool,
    rule: str = LETTER_RULE,
    authors: str = "first four characters (S-VCO authors)",
) -> dict[str, Any]:
    """:func:`counts`, by which of the two rules."""
    name = "authors_letter" if paper_compat else "letter"
    return counts(lines, authors if paper_compat else rule, sum(line[name] is None for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; UserError if it is damaged."""
    try:
        return [json.loads(line) for _, line in json_lines(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as lines of JSON: {error}.") from None

"""Two texts word by word: where they differ, and by how much."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# Scripts that put no space between words are taken character by character.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W_]+(?:['’][^\W_]+)?|[^\w\s]|_+")
_EMPTY_WORDS = (
    "a an the of in on at to is are was were be been it its this that there here and or with as by for from i we you he she they "
    "has have had do does did can image picture photo"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
"""Words that say nothing of a picture."""
_NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {str(number): word for number, word in enumerate(_NUMBER_WORDS.split(), 1)}


@dataclass(frozen=True)
class Piece:
    """A stretch of a text."""

    text: str
    """As it stands there, spaces included."""
    differs: bool
    """Whether the other text has something else there."""


def words_of(text: str) -> list[str]:
    """The words of ``text`` in lower case, without punctuation."""
    return [word.casefold().replace("’", "'") for word in _WORD.findall(text) if re.search(r"\w", word)]


def telling(words: Sequence[str]) -> set[str]:
    """Those of ``words`` that say something of a picture: one and many alike, small numbers as words."""
    return {re.sub(r"(?<=\w\w)(?:es|s)$", "", _NUMBERS.get(word, word)) for word in words if word not in _EMPTY}


def differing_words(first: str, second: str) -> tuple[list[str], list[str]]:
    """The words of ``first`` that ``second`` does not have in their place, and the other way round."""
    a, b = words_of(first), words_of(second)
    only_a, only_b = [], []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind != "equal":
            only_a += a[a0:a1]
            only_b += b[b0:b1]
    return only_a, only_b


def pieces(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts, cut where they begin or cease to differ. Capitals make no difference; punctuation does."""
    spans = [list(_WORD.finditer(text)) for text in (first, second)]
    a, b = ([found.group().casefold() for found in side] for side in spans)
    marks = [[False] * len(side) for side in spans]
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind != "equal":
            marks[0][a0:a1] = [True] * (a1 - a0)
            marks[1][b0:b1] = [True] * (b1 - b0)
    return _cut(first, spans[0], marks[0]), _cut(second, spans[1], marks[1])


def _cut(text: str, spans: list[re.Match[str]], marks: list[bool]) -> list[Piece]:
    """Spaces go with differing words where those stand on both sides of them."""
    found: list[Piece] = []
    at = 0
    for number, (span, differs) in enumerate(zip(spans, marks)):
        joined = differs and number > 0 and marks[number - 1]
        if span.start() > at:
            found.append(Piece(text[at : span.start()], joined))
        found.append(Piece(span.group(), differs))
        at = span.end()
    if at < len(text):
        found.append(Piece(text[at:], False))
    merged: list[Piece] = []
    for piece in found:
        if merged and merged[-1].differs == piece.differs:
            merged[-1] = Piece(merged[-1].text + piece.text, piece.differs)
        else:
            merged.append(piece)
    return merged

"""What an answer says of a scene that is not so, decided from the scene's ground truth and not by a judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .grammar import NUMBERS
from .higher import TEXTS
from .scenes import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, Scene, Thing, relation

_STATE = re.compile(rf"\b({'|'.join(value for values, _, _ in TEXTS.values() for value in values)})\b")
_RELATION = re.compile(r"\b((?:left|right) of(?! the picture)|above|below)\b")


def false_words(answer: str, facts: Iterable[Mapping[str, Any]], query: str = "") -> list[str]:
    """The words of ``answer`` that are not true of the scene; empty where it says nothing false.

    ``facts`` are the objects of one side, ``PairText.facts["scenes"][side]``. Shapes, colours, sizes, numbers, places and
    relations are looked at, and light and motion (:mod:`svco.tiny_world.higher`) where the facts hold a ``state``: a word that
    stands before a shape is said of that shape, any other of the shapes that are named, in the answer or else in the ``query``,
    or of all objects where none is.
    """
    facts = list(facts)
    things = [Thing(f["shape"], f["colour"], f["size"], tuple(f["cell"])) for f in facts]
    states = {f["state"] for f in facts if "state" in f}
    text = answer.lower()
    related = _RELATION.findall(text)
    words = _singular(re.findall(r"[a-z]+", _RELATION.sub(" ", text)))
    named = [word for word in words if word in SHAPES]
    asked = named or [word for word in _singular(re.findall(r"[a-z]+", query.lower())) if word in SHAPES]
    false = [word for word in named if word not in {thing.shape for thing in things}]
    for place, word in enumerate(words):
        owner = _described(words, place)
        shapes = [owner] if owner else asked
        subjects = [thing for thing in things if thing.shape in shapes] or things
        untrue = word in _LOOKS and not any(word in _looks(thing) for thing in subjects)
        if untrue or (_counts(words, place) and NUMBERS.index(word) + 1 != len(subjects)):
            false.append(word)
    false += [word for word in _STATE.findall(text) if states and word not in states]
    return false + [word for word in related if not _related(word, asked, things)]


def _singular(words: list[str]) -> list[str]:
    """The words with the shapes' plurals as singulars."""
    plurals = {shape + ending: shape for shape in SHAPES for ending in ("s", "es")}
    return [plurals.get(word, word) for word in words]


def _counts(words: list[str], place: int) -> bool:
    """Whether a word is a number: "one" only before a shape, at the end, or before "here", not in "the blue one lies …"."""
    if words[place] != "one":
        return words[place] in NUMBERS
    before = words[place - 1] if place else None
    after = words[place + 1] if place + 1 < len(words) else None
    return _described(words, place) is not None or (before in (None, "is") and after in (None, "here"))


def _described(words: list[str], place: int) -> str | None:
    """The shape that the adjective at ``place`` stands before: "small red circle" describes the circle twice."""
    for word in words[place + 1 :]:
        if word in SHAPES:
            return word
        if word not in COLOURS and word not in SIZES:
            return None
    return None


def _related(word: str, asked: list[str], things: list[Thing]) -> bool:
    """Whether the first shape asked about is ``word`` the second; of scenes without two such shapes nothing is related."""
    first_of = {thing.shape: thing for thing in reversed(things)}
    chosen = [first_of[shape] for shape in list(dict.fromkeys(asked))[:2] if shape in first_of]
    if len(chosen) < 2:
        return False
    first, second = chosen
    straight = first.cell[0] == second.cell[0] or first.cell[1] == second.cell[1]
    return straight and Scene((first, second)).layout == "two" and relation(first, second) == word


_LOOKS = {*COLOURS, *SIZES, *ROWS, *COLUMNS}
"""Words that are true of one object or not, whatever else there is."""


def _looks(thing: Thing) -> tuple[str, ...]:
    """Those that are true of ``thing``."""
    row, column = thing.cell
    return (thing.colour, thing.size, ROWS[row], COLUMNS[column])

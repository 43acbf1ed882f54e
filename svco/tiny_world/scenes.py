"""What there is in a scene, and the world's regularities a language prior can lean on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
SIZES = ("small", "large")
ROWS = ("top", "bottom")
COLUMNS = ("left", "right")
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(row, column) of the four places."""
MAX_COUNT = 4

TYPICAL_SHARE = 0.85
"""How often an attribute takes its shape's typical value in the correlated world."""
UNSEEN = frozenset((shape, colour) for shape in ("square", "ring") for colour in ("yellow", "purple"))
"""Combinations kept out of pretraining and of the training and validation splits; a share of the held-out pairs has them.
None of them is typical."""


@dataclass(frozen=True)
class Typical:
    """What a shape usually is in the correlated world."""

    colour: str
    """One of COLOURS."""
    size: str
    """One of SIZES."""
    cell: tuple[int, int]
    """(row, column)."""
    count: int
    """1 to MAX_COUNT, in scenes of equal objects."""


TYPICAL = {
    "circle": Typical("red", "large", (0, 0), 2),
    "square": Typical("blue", "small", (1, 1), 3),
    "triangle": Typical("green", "large", (1, 0), 4),
    "star": Typical("yellow", "small", (0, 1), 1),
    "cross": Typical("purple", "large", (0, 0), 3),
    "ring": Typical("orange", "small", (1, 1), 2),
}
TYPICAL_SHAPE = {typical.colour: shape for shape, typical in TYPICAL.items()}


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    shape: str
    """One of SHAPES."""
    colour: str
    """One of COLOURS."""
    size: str
    """One of SIZES."""
    cell: tuple[int, int]
    """(row, column) of its place."""


@dataclass(frozen=True)
class Scene:
    """The ground truth of a picture."""

    things: tuple[Thing, ...]
    """One object; two to four equal ones; or two of different shape that share a row or a column."""

    @property
    def layout(self) -> str:
        """``one``, ``many`` (equal objects) or ``two`` (different ones)."""
        if len(self.things) == 1:
            return "one"
        return "many" if len({thing.shape for thing in self.things}) == 1 else "two"

    def facts(self) -> list[dict[str, Any]]:
        return [asdict(thing) | {"cell": list(thing.cell)} for thing in self.things]


def relation(first: Thing, second: Thing) -> str:
    """Where ``first`` is as seen from ``second``: ``left of``, ``right of``, ``above`` or ``below``."""
    if first.cell[0] == second.cell[0]:
        return "left of" if first.cell[1] < second.cell[1] else "right of"
    return "above" if first.cell[0] < second.cell[0] else "below"


def typically_first(shape: str, other: str) -> bool:
    """The correlated world's order: of two shapes, this one usually is on the left of the other, sometimes above it."""
    return SHAPES.index(shape) < SHAPES.index(other)


def sample_thing(rng: Random, correlated: bool, unseen: bool = False) -> Thing:
    """A random object. ``correlated``: attributes follow their shape's typical values; ``unseen``: from UNSEEN only."""
    if unseen:
        shape, colour = rng.choice(sorted(UNSEEN))
    else:
        shape = rng.choice(SHAPES)
        colour = _usually(rng, TYPICAL[shape].colour, COLOURS, correlated)
        while (shape, colour) in UNSEEN:
            colour = rng.choice(COLOURS)
    typical = TYPICAL[shape]
    return Thing(
        shape, colour, _usually(rng, typical.size, SIZES, correlated), _usually(rng, typical.cell, CELLS, correlated)
    )


def _usually(rng: Random, typical: Any, values: Sequence[Any], correlated: bool) -> Any:
    return typical if correlated and rng.random() < TYPICAL_SHARE else rng.choice(values)


def sample_scene(rng: Random, layout: str, correlated: bool, unseen: bool = False) -> Scene:
    """A random scene of ``layout``."""
    first = sample_thing(rng, correlated, unseen)
    if layout == "one":
        return Scene((first,))
    if layout == "many":
        count = _usually(rng, TYPICAL[first.shape].count, tuple(range(1, MAX_COUNT + 1)), correlated)
        return many(first, count, rng.sample(CELLS, MAX_COUNT))
    second = sample_thing(rng, correlated, unseen)
    while second.shape == first.shape:
        second = sample_thing(rng, correlated, unseen)
    if rng.random() < 0.5:
        first, second = second, first
    line = rng.randrange(2)
    sideways = rng.random() < (TYPICAL_SHARE if correlated else 0.5)
    places = [(line, 0), (line, 1)] if sideways else [(0, line), (1, line)]
    orderly = rng.random() < (TYPICAL_SHARE + (1 - TYPICAL_SHARE) / 2 if correlated else 0.5)
    if typically_first(first.shape, second.shape) is not orderly:
        places.reverse()
    return Scene((at(first, places[0]), at(second, places[1])))


def many(thing: Thing, count: int, cells: list[tuple[int, int]]) -> Scene:
    """``count`` copies of ``thing`` in the first ``count`` of ``cells``."""
    return Scene(tuple(at(thing, cell) for cell in cells[:count]))


def at(thing: Thing, cell: tuple[int, int]) -> Thing:
    return Thing(thing.shape, thing.colour, thing.size, cell)

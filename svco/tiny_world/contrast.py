"""Minimal contrast pairs of the world: two scenes that differ in one fact, one question, two true answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from PIL.Image import Image

from ..data.pairs import Pair, PairText
from .grammar import Question, questions
from .render import jpeg, render
from .scenes import CELLS, COLOURS, MAX_COUNT, SHAPES, SIZES, UNSEEN, Scene, Thing, at, many, sample_scene, sample_thing

CONTRAST_OF = {
    "object": "object",
    "colour": "attribute",
    "size": "attribute",
    "count": "relation",
    "relation": "relation",
    "left-right": "position",
    "up-down": "position",
}
"""Kind of contrast -> MVC's type (``relation`` is relation or number modification)."""
_KINDS = ("object", "object", "colour", "size", "count", "relation", "left-right", "up-down")
"""Kinds in turn, so that the four contrast types are equally frequent."""
UNSEEN_SHARE = 0.25
"""Share of held-out pairs whose objects are combinations that training never shows."""
SPLITS = {"train": (1024, 128), "val": (128, 64), "heldout": (256, 128)}
"""Split -> (pairs, pairs a shard) of what is shipped. ``gate``, of any size, is rendered when asked for."""


@dataclass(frozen=True)
class Told:
    """A pair before it is drawn."""

    text: PairText
    """Question and answers; ``facts`` hold the scenes."""
    scenes: tuple[Scene, Scene]
    """What image 0 and image 1 are to show."""
    draw: int
    """Seed of the drawing, one for both sides."""


def tell(split: str, index: int, seed: int = 0) -> Told:
    """Pair ``index`` of ``split``, a pure function of its arguments.

    The scenes of a pair come from the correlated world, or its exceptions, in equal shares; which side shows what is
    random.
    """
    rng = seeded(seed, split, index)
    kind = _KINDS[index % len(_KINDS)]
    unseen = split in ("heldout", "gate") and rng.random() < UNSEEN_SHARE
    first, second = _contrasting(rng, kind, unseen)
    if rng.random() < 0.5:
        first, second = second, first
    asked = _question(rng, kind, first, second)
    form, draw = rng.randrange(2), rng.randrange(2**62)
    text = PairText(
        key=f"{split}-{index:06d}",
        query=asked[0].ask(form),
        responses=(asked[0].answer(asked[0].value, form), asked[1].answer(asked[1].value, form)),
        contrast=CONTRAST_OF[kind],
        kind=kind,
        source="svco-world",
        ids={"seed": str(seed), "index": str(index)},
        facts={
            "scenes": [first.facts(), second.facts()],
            "values": [q.value for q in asked],
            "typical": asked[0].typical,
            "unseen": unseen,
        },
    )
    return Told(text, (first, second), draw)


def seeded(what: object, split: str, index: int) -> Random:
    """The random numbers of pair ``index`` of ``split`` for one purpose: a seed of the world, or a word."""
    return Random(int.from_bytes(hashlib.sha256(f"svco world {what} {split} {index}".encode()).digest()[:8], "big"))


def drawn(told: Told, style: str, finish: Callable[[int, Image], Image] = lambda side, image: image) -> Pair:
    """The pair as it is stored: both sides drawn with one seed, so that nothing but the contrast differs between them, and
    ``finish``ed, (side, picture) -> picture."""
    first, second = (jpeg(finish(side, render(scene, told.draw, style))) for side, scene in enumerate(told.scenes))
    return Pair(told.text, (first, second))


def world_pair(split: str, index: int, seed: int = 0, style: str = "solid") -> Pair:
    """Pair ``index`` of ``split``, drawn."""
    return drawn(tell(split, index, seed), style)


def world_pairs(split: str, start: int, count: int, seed: int = 0, style: str = "solid") -> Iterator[Pair]:
    """``count`` pairs of ``split`` from ``start`` on, rendered as they are asked for."""
    return (world_pair(split, index, seed, style) for index in range(start, start + count))


def _question(rng: Random, kind: str, first: Scene, second: Scene) -> tuple[Question, Question]:
    """A question of ``kind`` that both scenes answer, differently, in the same words: asked of each."""
    ours, theirs = ([q for q in questions(scene) if q.kind == kind] for scene in (first, second))
    shared = [(a, b) for a in ours for b in theirs if a.names == b.names and a.value != b.value]
    return rng.choice(shared)


def _contrasting(rng: Random, kind: str, unseen: bool) -> tuple[Scene, Scene]:
    """Two scenes that differ in one fact of ``kind``."""
    correlated = rng.random() < 0.5
    thing = sample_thing(rng, correlated, unseen)
    if kind == "count":
        cells = rng.sample(CELLS, MAX_COUNT)
        low, high = rng.sample(range(1, MAX_COUNT + 1), 2)
        return many(thing, low, cells), many(thing, high, cells)
    if kind == "relation":
        # One object stays, the other moves from beside it to above or below it.
        stays, moves = rng.sample(sample_scene(rng, "two", correlated, unseen).things, 2)
        row, column = stays.cell
        return Scene((stays, at(moves, (row, 1 - column)))), Scene((stays, at(moves, (1 - row, column))))
    if kind == "colour" and rng.random() < 0.5 and not unseen:
        return _swapped_colours(rng, correlated)
    return Scene((thing,)), Scene((_changed(rng, kind, thing, unseen),))


def _changed(rng: Random, kind: str, thing: Thing, unseen: bool) -> Thing:
    row, column = thing.cell
    if kind == "size":
        return replace(thing, size=SIZES[1 - SIZES.index(thing.size)])
    if kind == "left-right":
        return at(thing, (row, 1 - column))
    if kind == "up-down":
        return at(thing, (1 - row, column))
    # Object or colour: a combination from the same side of the unseen line.
    if kind == "object":
        options = [replace(thing, shape=shape) for shape in SHAPES if shape != thing.shape]
    else:
        options = [replace(thing, colour=colour) for colour in COLOURS if colour != thing.colour]
    return rng.choice([other for other in options if ((other.shape, other.colour) in UNSEEN) is unseen])


def _swapped_colours(rng: Random, correlated: bool) -> tuple[Scene, Scene]:
    """Attribute binding in the strict sense: the same two objects and the same two colours, exchanged."""
    while True:
        scene = sample_scene(rng, "two", correlated)
        a, b = scene.things
        if a.colour != b.colour and not {(a.shape, b.colour), (b.shape, a.colour)} & UNSEEN:
            return scene, Scene((replace(a, colour=b.colour), replace(b, colour=a.colour)))

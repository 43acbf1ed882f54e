"""How the world is talked about: questions and answers, terse and conversational, about each kind of fact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from .scenes import (
    CELLS,
    COLOURS,
    COLUMNS,
    MAX_COUNT,
    ROWS,
    SHAPES,
    SIZES,
    TYPICAL,
    TYPICAL_SHAPE,
    TYPICAL_SHARE,
    Scene,
    Thing,
    relation,
    typically_first,
)

NUMBERS = ("one", "two", "three", "four")
KINDS = ("object", "colour", "size", "count", "relation", "left-right", "up-down")
"""What a question can be about; also the kinds of contrast."""

QUESTIONS = {
    "object": ("Which object is {colour} in this picture?", "What is the {colour} thing here?"),
    "colour": ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    "size": ("How big is the {shape}?", "What size is the {shape} here?"),
    "count": ("How many {shape} figures are there?", "What is the number of {shape} figures?"),
    "relation": ("Where is the {shape} as seen from the {other}?", "How does the {shape} lie next to the {other}?"),
    "left-right": ("Is the {shape} on the left or on the right?", "On which side is the {shape}?"),
    "up-down": ("Is the {shape} at the top or at the bottom?", "At which height is the {shape}?"),
}
ANSWERS = {
    "object": (
        "A {value}.",
        ("The {colour} object in this picture is a {value}.", "I can see that it is a {value} here."),
    ),
    "colour": ("{value}.", ("The {shape} in this picture is {value}.", "I can see that the {shape} is {value}.")),
    "size": ("{value}.", ("The {shape} in this picture is {value}.", "I can see that the {shape} looks {value}.")),
    "count": (
        "{value}.",
        ("The count of {shape} figures is {value} here.", "The number of {shape} figures here is {value}."),
    ),
    "relation": (
        "{value} it.",
        ("The {shape} is {value} the {other} here.", "I can see the {shape} {value} the {other}."),
    ),
    "left-right": (
        "{value}.",
        ("The {shape} is on the {value} of the picture.", "I can see the {shape} on the {value} side."),
    ),
    "up-down": (
        "{value}.",
        ("The {shape} is at the {value} of the picture.", "I can see the {shape} near the {value}."),
    ),
}
CAPTION_QUESTIONS = ("What does this picture show?", "Please describe the picture.")
CAPTIONS = {
    "one": "The picture shows a {size} {colour} {shape} at the {row} {column}.",
    "many": "The picture shows {count} {size} {colour} {shape} figures.",
    "two": "The picture shows a {colour} {shape} {relation} a {colour2} {shape2}.",
}
RELATIONS = ("left of", "right of", "above", "below")
VALUES = {
    "object": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "count": NUMBERS,
    "relation": RELATIONS,
    "left-right": COLUMNS,
    "up-down": ROWS,
}


@dataclass(frozen=True)
class Question:
    """Something one can ask about a scene, with its true answer and what the prior would say."""

    kind: str
    """One of KINDS."""
    names: tuple[tuple[str, str], ...]
    """Slots of the question other than the value, e.g. (("shape", "circle"),)."""
    value: str
    """The true value."""
    typical: str
    """What the correlated world would make one expect from the question alone."""

    def ask(self, form: int) -> str:
        return QUESTIONS[self.kind][form].format(**dict(self.names))

    def answer(self, value: str, form: int | None) -> str:
        """The answer that says ``value``; ``form`` picks a conversational sentence, None is terse."""
        terse, sentences = ANSWERS[self.kind]
        text = (terse if form is None else sentences[form]).format(value=value, **dict(self.names))
        return text[0].upper() + text[1:]

    def prior(self, rng: Random) -> str:
        """A value drawn from the world's regularities instead of from the picture."""
        return self.typical if rng.random() < TYPICAL_SHARE else rng.choice(VALUES[self.kind])


def questions(scene: Scene) -> list[Question]:
    """Every question that ``scene`` answers without ambiguity."""
    found = []
    if scene.layout == "two":
        for thing, other in (scene.things, scene.things[::-1]):
            found += [_about(kind, thing) for kind in ("object", "colour", "size", "left-right", "up-down")]
            typical = "left of" if typically_first(thing.shape, other.shape) else "right of"
            names = (("shape", thing.shape), ("other", other.shape))
            found.append(Question("relation", names, relation(thing, other), typical))
        if scene.things[0].colour == scene.things[1].colour:
            found = [question for question in found if question.kind != "object"]
        return found
    thing = scene.things[0]
    kinds = ["object", "colour", "size"]
    if scene.layout == "one":
        kinds += ["left-right", "up-down"]
    number, usual = NUMBERS[len(scene.things) - 1], NUMBERS[TYPICAL[thing.shape].count - 1]
    return [*(_about(kind, thing) for kind in kinds), Question("count", (("shape", thing.shape),), number, usual)]


def _about(kind: str, thing: Thing) -> Question:
    typical = TYPICAL[thing.shape]
    value, expected = {
        "object": (thing.shape, TYPICAL_SHAPE[thing.colour]),
        "colour": (thing.colour, typical.colour),
        "size": (thing.size, typical.size),
        "left-right": (COLUMNS[thing.cell[1]], COLUMNS[typical.cell[1]]),
        "up-down": (ROWS[thing.cell[0]], ROWS[typical.cell[0]]),
    }[kind]
    name = ("colour", thing.colour) if kind == "object" else ("shape", thing.shape)
    return Question(kind, (name,), value, expected)


def caption(scene: Scene) -> str:
    """One sentence with every fact of the scene's layout."""
    first, last = scene.things[0], scene.things[-1]
    return CAPTIONS[scene.layout].format(
        size=first.size,
        colour=first.colour,
        shape=first.shape,
        row=ROWS[first.cell[0]],
        column=COLUMNS[first.cell[1]],
        count=NUMBERS[len(scene.things) - 1],
        colour2=last.colour,
        shape2=last.shape,
        relation=relation(first, last) if scene.layout == "two" else "",
    )


def corpus() -> Iterator[str]:
    """Sentences that together use every word of the grammar, for training a tokenizer."""
    yield from CAPTION_QUESTIONS
    asked = [(kind, QUESTIONS[kind]) for kind in KINDS]
    answered = [(kind, (terse, *sentences)) for kind, (terse, sentences) in ANSWERS.items()]
    for kind, texts in asked + answered:
        for text, value, (shape, colour) in product(texts, VALUES[kind], zip(SHAPES, COLOURS)):
            filled = text.format(value=value, shape=shape, other=shape, colour=colour)
            yield filled[0].upper() + filled[1:]
    for thing in (Thing(*values) for values in product(SHAPES, COLOURS, SIZES, CELLS)):
        yield caption(Scene((thing,)))
        yield caption(Scene((thing,) * MAX_COUNT))

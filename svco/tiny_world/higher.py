"""Contrasts above single objects, which the paper leaves open: the scene (day or night) and the action (rising, falling, standing
still). The embedded shards and base know neither; they are drawn when asked for (variant ``higher``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.pairs import Pair, PairText
from .contrast import UNSEEN_SHARE, Told, drawn, seeded
from .render import SIDE
from .scenes import Scene, Thing, sample_scene, sample_thing

TEXTS = {
    "light": (
        ("day", "night"),
        ("Is it day or night in this picture?", "What time of day does the picture show?"),
        ("It is {value} in this picture.", "I can see that the picture shows the {value}."),
    ),
    "motion": (
        ("rising", "falling", "standing still"),
        ("What is the {shape} doing?", "What does the {shape} do in this picture?"),
        ("The {shape} is {value} in this picture.", "I can see that the {shape} is {value} here."),
    ),
}
"""Kind -> values, forms of the question, and the answer to each."""
CONTRAST_OF = {"light": "scene", "motion": "action"}
"""Kind -> contrast type."""
_NIGHT, _SKY = 0.4, (0, 0, 28)
"""Share of the light that is left at night, and what is added to it."""
_TRAIL = {"rising": 1, "falling": -1}
"""Where a moving thing's strokes are: below it, or above."""
_NEAR, _LONG = 7, 3
"""Pixels from its middle to the strokes, and their length."""


def higher_pair(split: str, index: int, style: str = "solid") -> Pair:
    """Pair ``index`` of ``split``, scene and action in turn: both sides show the same things at the same places."""
    rng = seeded("higher", split, index)
    kind = tuple(TEXTS)[index % 2]
    unseen = split in ("heldout", "gate") and rng.random() < UNSEEN_SHARE
    thing = sample_thing(rng, rng.random() < 0.5, unseen)
    scene = (
        Scene((replace(thing, size="small"),))
        if kind == "motion"
        else sample_scene(rng, "one", rng.random() < 0.5, unseen)
    )
    values, asks, answers = TEXTS[kind]
    first, second = rng.sample(values, 2)
    form, shape = rng.randrange(2), scene.things[0].shape
    text = PairText(
        key=f"{split}-higher-{index:06d}",
        query=asks[form].format(shape=shape),
        responses=(answers[form].format(shape=shape, value=first), answers[form].format(shape=shape, value=second)),
        contrast=CONTRAST_OF[kind],
        kind=kind,
        source="svco-world",
        ids={"index": str(index)},
        facts={"scenes": [_told(scene, first), _told(scene, second)], "values": [first, second], "unseen": unseen},
    )
    told = Told(text, (scene, scene), rng.randrange(2**62))
    return drawn(told, style, lambda side, image: _shown(image, (first, second)[side], scene.things[0]))


def _told(scene: Scene, value: str) -> list[dict[str, Any]]:
    """The facts of one side: of its things, and what is said of them all."""
    return [thing | {"state": value} for thing in scene.facts()]


def _shown(image: Image.Image, value: str, thing: Thing) -> Image.Image:
    """``image`` at night, or with strokes that show where ``thing`` comes from; as it is by day and at rest."""
    if value == "night":
        dark = np.asarray(image, np.float32) * _NIGHT + np.array(_SKY, np.float32)
        return Image.fromarray(np.clip(dark, 0, 255).astype(np.uint8))
    if value not in _TRAIL:
        return image
    out = image.copy()
    row, column = thing.cell
    x, y = (SIDE / 4 + SIDE / 2 * place for place in (column, row))
    draw = ImageDraw.Draw(out)
    for aside in (-4, 0, 4):
        start, end = (y + _TRAIL[value] * reach for reach in (_NEAR, _NEAR + _LONG))
        draw.line((x + aside, start, x + aside, end), fill=(30, 30, 30), width=1)
    return out

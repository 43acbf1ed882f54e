"""The world's pairs as studies need them: with an artefact of editing, faults of a generator, another style, a fixed order.

Every variant is a pure function of (split, index): pair ``index`` asks the same question in all of them but ``captions`` and
``higher``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from ..data.pairs import Pair, PairText
from .contrast import Told, drawn, seeded, tell
from .grammar import CAPTION_QUESTIONS, caption
from .higher import higher_pair
from .render import SIDE, jpeg, render
from .scenes import TYPICAL, Scene, sample_scene

STAMP_SIDE = 6
"""Pixels of the stamp's side."""
STAMP_COLOUR = (255, 0, 255)
FAILED_EDITS = 0.25
"""Share of unfiltered pairs whose second image shows what the first does: the edit did not come out."""
LOOSE_EDITS = 0.25
"""Share of unfiltered pairs whose second image is drawn anew, so that everything else differs as well."""


@dataclass(frozen=True)
class Variant:
    """How a study's pairs differ from the world's own."""

    name: str = "plain"
    """``plain``; ``artefact``: a stamp on one side's image; ``typical``: side 0 is always the more typical scene;
    ``unfiltered``: a share of pairs with images that fail the authors' filter; ``captions``, ``captions-plain``: no contrast
    but two ordinary scenes with a caption each, with and without the world's correlations; ``higher``: contrasts of scene and
    action."""
    style: str = "solid"
    """One of ``render.STYLES``."""
    side: str = "1"
    """``artefact``: the side that is stamped, ``0``, ``1`` or ``random``."""
    opacity: float = 1.0
    """``artefact``: how visible the stamp is, 0 to 1."""

    def pairs(self, split: str, count: int) -> Iterator[Pair]:
        """The first ``count`` pairs of ``split``."""
        return (VARIANTS[self.name](self, split, index) for index in range(count))


def _plain(variant: Variant, split: str, index: int) -> Pair:
    return drawn(tell(split, index), variant.style)


def _artefact(variant: Variant, split: str, index: int) -> Pair:
    """Stamped before it is stored: an edited file would show its second compression as well."""
    told = tell(split, index)
    edited = seeded("side", split, index).randrange(2) if variant.side == "random" else int(variant.side)
    told = replace(told, text=_with_facts(told.text, edited=edited, opacity=variant.opacity))
    return drawn(told, variant.style, lambda side, image: stamped(image, variant.opacity) if side == edited else image)


def stamped(image: Image.Image, opacity: float) -> Image.Image:
    """``image`` with a magenta square in its lower right corner, ``opacity`` visible."""
    box = (SIDE - STAMP_SIDE, SIDE - STAMP_SIDE, SIDE, SIDE)
    mark = Image.new("RGB", (STAMP_SIDE, STAMP_SIDE), STAMP_COLOUR)
    out = image.copy()
    out.paste(Image.blend(image.crop(box), mark, opacity), box)
    return out


def _typical(variant: Variant, split: str, index: int) -> Pair:
    told = tell(split, index)
    first, second = map(typicality, told.scenes)
    return drawn(swapped(told) if second > first else told, variant.style)


def typicality(scene: Scene) -> float:
    """Share of a scene's facts (colour, size and place of each object, their number) that are what is usual for the shape."""
    facts = []
    for thing in scene.things:
        usual = TYPICAL[thing.shape]
        facts += [thing.colour == usual.colour, thing.size == usual.size]
        if scene.layout == "one":
            facts.append(thing.cell == usual.cell)
    if scene.layout == "many":
        facts.append(len(scene.things) == TYPICAL[scene.things[0].shape].count)
    return sum(facts) / len(facts)


def swapped(told: Told) -> Told:
    """The same pair with its sides exchanged."""
    facts = {name: told.text.facts[name][::-1] for name in ("scenes", "values")}
    text = _with_facts(replace(told.text, responses=told.text.responses[::-1]), **facts)
    return replace(told, scenes=told.scenes[::-1], text=text)


def _unfiltered(variant: Variant, split: str, index: int) -> Pair:
    """What a generator makes before anyone looks: the paper's "Raw" row. Side 1's answer stays that of the scene asked for."""
    told, rng = tell(split, index), seeded("fault", split, index)
    chance = rng.random()
    shown, draw, fault = told.scenes[1], told.draw, "none"
    if chance < FAILED_EDITS:
        shown, fault = told.scenes[0], "failed edit"
    elif chance < FAILED_EDITS + LOOSE_EDITS:
        draw, fault = rng.randrange(2**62), "loose edit"
    images = (render(told.scenes[0], told.draw, variant.style), render(shown, draw, variant.style))
    return Pair(_with_facts(told.text, fault=fault), (jpeg(images[0]), jpeg(images[1])))


def _higher(variant: Variant, split: str, index: int) -> Pair:
    return higher_pair(split, index, variant.style)


def _captions(variant: Variant, split: str, index: int) -> Pair:
    rng = seeded(variant.name, split, index)
    layouts = ("one", "many", "two")
    first, second = (sample_scene(rng, rng.choice(layouts), variant.name == "captions") for _ in range(2))
    text = PairText(
        key=f"{split}-{variant.name}-{index:06d}",
        query=rng.choice(CAPTION_QUESTIONS),
        responses=(caption(first), caption(second)),
        source="svco-world",
        facts={"scenes": [first.facts(), second.facts()]},
    )
    return drawn(Told(text, (first, second), rng.randrange(2**62)), variant.style)


def _with_facts(text: PairText, **facts: Any) -> PairText:
    return replace(text, facts={**text.facts, **facts})


VARIANTS: dict[str, Callable[[Variant, str, int], Pair]] = {
    "plain": _plain,
    "artefact": _artefact,
    "typical": _typical,
    "unfiltered": _unfiltered,
    "captions": _captions,
    "captions-plain": _captions,
    "higher": _higher,
}

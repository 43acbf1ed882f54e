"""A raw source of the world's, such as sets of counterfactuals are made of: pictures before and after an edit that a
generator was asked for, a caption of each, and the flaws that come with generators.

Nobody has looked at these pairs. Each says which flaw it has (column ``fault``), so that a filter can be judged; no filter reads
it. The shares are chosen, not measured on any release.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from .contrast import seeded, tell
from .grammar import caption
from .render import jpeg, render
from .scenes import Scene, sample_scene

FAULTS = {"none": 0.50, "failed edit": 0.20, "faint edit": 0.15, "other scene": 0.15}
"""Fault -> share of the pairs. A failed edit shows what was there before, as a generator draws it again; a faint one came out at
``FAINT`` of its strength; both keep the caption of what was asked for. Another scene is a picture of something else with its own
true caption: no contrast, but two pictures."""
FAINT = 0.25
"""How much of a faint edit is visible."""
_GRAIN = 3.0
"""Standard deviation, in levels of 255, of what a generator changes everywhere: no edited picture equals the original."""
COLUMNS = ("name", "caption_0", "caption_1", "type", "kind", "licence", "fault", "edited")


@dataclass(frozen=True)
class RawPair:
    """One pair of the source."""

    row: dict[str, str]
    """Column of texts.csv -> text."""
    images: tuple[bytes, bytes]
    """JPEG files."""


def raw_pair(split: str, index: int, faulty: bool = True) -> RawPair:
    """Pair ``index`` of ``split``: the scenes of the world's own pair of that number. Which of the two pictures is the edited one
    is drawn; without ``faulty`` every edit came out."""
    told, rng = tell(split, index), seeded("raw", split, index)
    edited, fault = rng.randrange(2), _fault(rng) if faulty else "none"
    scenes = list(told.scenes)
    pictures = [render(scene, told.draw) for scene in scenes]
    if fault == "failed edit":
        pictures[edited] = pictures[1 - edited]
    elif fault == "faint edit":
        pictures[edited] = Image.blend(pictures[1 - edited], pictures[edited], FAINT)
    elif fault == "other scene":
        scenes[edited] = _another(rng, scenes)
        pictures[edited] = render(scenes[edited], rng.randrange(2**62))
    pictures[edited] = _drawn_again(pictures[edited], rng.randrange(2**62))
    captions = [caption(scene).removeprefix("The picture shows ").capitalize() for scene in scenes]
    row = {
        "name": f"{split}-{index:06d}",
        "caption_0": captions[0],
        "caption_1": captions[1],
        "type": told.text.contrast,
        "kind": told.text.kind or "",
        "licence": "Apache-2.0",
        "fault": fault,
        "edited": str(edited),
    }
    return RawPair(row, (jpeg(pictures[0]), jpeg(pictures[1])))


def _fault(rng: Random) -> str:
    return rng.choices(tuple(FAULTS), tuple(FAULTS.values()))[0]


def _another(rng: Random, scenes: list[Scene]) -> Scene:
    """A scene that none of ``scenes`` is, of any layout."""
    while True:
        scene = sample_scene(rng, rng.choice(("one", "many", "two")), rng.random() < 0.5)
        if caption(scene) not in map(caption, scenes):
            return scene


def _drawn_again(image: Image.Image, seed: int) -> Image.Image:
    grain = np.random.default_rng(seed).normal(0, _GRAIN, np.asarray(image).shape)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def write_raw(pairs: Iterator[RawPair], target: Path) -> dict[str, int]:
    """Writes ``target``/first, ``target``/second and ``target``/texts.csv, as ``svco data import folder`` takes them; how many
    pairs have each fault."""
    for side in ("first", "second"):
        (target / side).mkdir(parents=True)
    counts = dict.fromkeys(FAULTS, 0)
    with (target / "texts.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        for pair in pairs:
            table.writerow(pair.row)
            counts[pair.row["fault"]] += 1
            for side, data in zip(("first", "second"), pair.images):
                (target / side / f"{pair.row['name']}.jpg").write_bytes(data)
    return counts

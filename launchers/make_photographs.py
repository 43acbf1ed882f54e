"""Makes a raw source of edited photographs, as two folders of pictures and a CSV of captions: eight photographs that scikit-image
and scikit-learn bring with them, mirrored, recoloured, cut, darkened, or with something pasted in. The walk of
data_shards/WALK.md begins with it: ``pip install scikit-image scikit-learn; python launchers/make_photographs.py raw``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from svco.basics.errors import UserError, exit_codes

Picture = Image.Image
Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""

LICENCES = {
    "astronaut": "public domain (NASA)",
    "rocket": "public domain (SpaceX)",
    "coffee": "CC0 (Rachel Michetti)",
    "chelsea": "CC0 (Stefan van der Walt)",
    "camera": "CC0 (Lav Varshney)",
    "horse": "CC0 (Andreas Preuss)",
    "china": "CC BY 2.0 (danielbuechele, flickr)",
    "flower": "CC BY 2.0 (vultilion, flickr)",
}
"""As the two packages state them of the photographs that they bring along; others of theirs are fetched when asked for."""


def photograph(name: str) -> Picture:
    """One of ``LICENCES``, in RGB."""
    try:
        if name in ("china", "flower"):
            from sklearn.datasets import load_sample_image

            pixels: Any = load_sample_image(f"{name}.jpg")
        else:
            from skimage import data

            pixels = getattr(data, name)()
    except ImportError as error:
        raise UserError(
            f"{error}. The photographs come with two packages: pip install scikit-image scikit-learn"
        ) from None
    grey = np.asarray(pixels)
    return Image.fromarray(grey * np.uint8(255) if grey.dtype == bool else grey).convert("RGB")


def recoloured(picture: Picture, degrees: int, hues: tuple[int, int] = (340, 40), least: float = 0.5) -> Picture:
    """``picture`` with each hue in ``hues`` (degrees; over 0 where the first is larger) of at least this saturation turned."""
    hsv = np.array(picture.convert("HSV"))
    hue, (low, high) = hsv[..., 0] * 360.0 / 256, hues
    within = (hue >= low) | (hue <= high) if low > high else (hue >= low) & (hue <= high)
    turned = (hsv[..., 0] + round(degrees * 256 / 360)).astype(np.uint8)
    hsv[..., 0] = np.where(within & (hsv[..., 1] >= 255 * least), turned, hsv[..., 0])
    return Image.fromarray(hsv, "HSV").convert("RGB")


def at_night(picture: Picture) -> Picture:
    dark = np.asarray(picture, np.float32) * (0.22, 0.24, 0.34) + (0, 0, 14)
    return Image.fromarray(dark.astype(np.uint8))


def inked(picture: Picture, colour: tuple[int, int, int]) -> Picture:
    """``picture`` with ``colour`` where it is black."""
    return ImageOps.colorize(picture.convert("L"), colour, (255, 255, 255))


def cut(picture: Picture, box: Box) -> Picture:
    return picture.crop(box).resize(picture.size, Image.Resampling.LANCZOS)


def copied(picture: Picture, box: Box, place: tuple[int, int]) -> Picture:
    """``picture`` with what is in ``box`` at ``place`` as well."""
    out = picture.copy()
    out.paste(picture.crop(box), place)
    return out


def with_shape(picture: Picture, boxes: list[Box]) -> Picture:
    """The horse's silhouette in each of ``boxes``."""
    out = picture.copy()
    for left, top, right, bottom in boxes:
        shape = photograph("horse").resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        out.paste(shape, (left, top), ImageOps.invert(shape.convert("L")))
    return out


def with_disc(picture: Picture, name: str, source: Box, box: Box) -> Picture:
    """The round part of the photograph ``name`` that ``source`` holds, in ``box``."""
    out, size = picture.copy(), (box[2] - box[0], box[3] - box[1])
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((0, 0, *size), fill=255)
    out.paste(photograph(name).crop(source).resize(size, Image.Resampling.LANCZOS), box[:2], mask)
    return out


def herd(picture: Picture, boxes: list[Box]) -> Picture:
    return with_shape(Image.new("RGB", picture.size, "white"), boxes)


def instead(picture: Picture, name: str) -> Picture:
    """Another photograph: no edit at all."""
    return photograph(name).resize(picture.size)


BLOSSOM, CAT = (165, 80, 450, 365), (60, 10, 400, 300)
"""Where the flower and the cat's face are in their photographs."""
DAHLIA = partial(with_disc, name="flower", source=BLOSSOM)

# photograph, contrast type, kind of edit, edit, caption before, caption after
EDITS: tuple[tuple[str, str, str, Callable[[Picture], Picture], str, str], ...] = (
    ("astronaut", "position", "mirror", ImageOps.mirror,
     "A woman in a space suit with a flag at the left.", "A woman in a space suit with a flag at the right."),
    ("astronaut", "attribute", "recolour", partial(recoloured, degrees=200, hues=(350, 25), least=0.6),
     "A smiling woman in an orange space suit.", "A smiling woman in a blue space suit."),
    ("astronaut", "object", "paste", partial(DAHLIA, box=(340, 0, 490, 150)),
     "A woman in a space suit and behind her a space shuttle.", "A woman in a space suit and behind her a big flower."),
    ("astronaut", "unknown", "crop", partial(cut, box=(140, 0, 320, 180)),
     "A woman in a space suit with her helmet before her.", "The face of a smiling woman."),
    ("rocket", "attribute", "recolour", partial(recoloured, degrees=130, hues=(180, 280), least=0.2),
     "A rocket on its pad under a dark blue sky.", "A rocket on its pad under a dark red sky."),
    ("rocket", "relation", "paste", partial(copied, box=(300, 120, 345, 400), place=(230, 120)),
     "One rocket between steel towers.", "Two rockets between steel towers."),
    ("rocket", "unknown", "crop", partial(cut, box=(270, 110, 380, 183)),
     "A rocket and its towers in the evening.", "The tip of a rocket in the evening."),
    ("coffee", "position", "mirror", ImageOps.mirror,
     "A cup of coffee with its spoon to the right of the handle.", "A cup of coffee with its spoon to the left of the handle."),
    ("coffee", "attribute", "recolour", partial(recoloured, degrees=210, hues=(345, 14), least=0.75),
     "A cup of coffee on a red saucer.", "A cup of coffee on a blue saucer."),
    ("coffee", "object", "paste", partial(DAHLIA, box=(205, 70, 365, 215)),
     "A cup full of coffee on a wooden table.", "A cup with a flower in it on a wooden table."),
    ("chelsea", "position", "mirror", ImageOps.mirror,
     "A cat that turns its face to the right.", "A cat that turns its face to the left."),
    ("chelsea", "attribute", "recolour", partial(recoloured, degrees=180, hues=(0, 50), least=0.3),
     "The face of a brown cat.", "The face of a blue cat."),
    ("chelsea", "object", "paste", partial(DAHLIA, box=(170, 0, 270, 80)),
     "A cat with nothing on its head.", "A cat with a flower on its head."),
    ("camera", "position", "mirror", ImageOps.mirror,
     "A man with a camera stands at the left.", "A man with a camera stands at the right."),
    ("camera", "object", "paste", partial(with_shape, boxes=[(330, 210, 500, 350)]),
     "A man with a camera before an empty meadow.", "A man with a camera before a meadow with a horse."),
    ("camera", "scene", "darken", at_night,
     "A man with a camera on a meadow by day.", "A man with a camera on a meadow at night."),
    ("horse", "position", "mirror", ImageOps.mirror, "A black horse that looks right.", "A black horse that looks left."),
    ("horse", "attribute", "recolour", partial(inked, colour=(190, 30, 30)),
     "The shape of a black horse.", "The shape of a red horse."),
    ("horse", "action", "turn", ImageOps.flip, "A horse that stands on its legs.", "A horse that lies on its back."),
    ("horse", "relation", "paste", partial(herd, boxes=[(0, 90, 190, 246), (205, 90, 395, 246)]),
     "One horse on white ground.", "Two horses on white ground."),
    ("china", "position", "mirror", ImageOps.mirror,
     "A tower at the left of the picture before a lake.", "A tower at the right of the picture before a lake."),
    ("china", "attribute", "recolour", partial(recoloured, degrees=240, hues=(340, 30), least=0.3),
     "A tower with red roofs by a lake.", "A tower with purple roofs by a lake."),
    ("china", "object", "paste", partial(DAHLIA, box=(430, 30, 580, 180)),
     "A tower under an empty sky.", "A tower under a sky with a huge flower."),
    ("china", "scene", "darken", at_night,
     "A tower by a lake in bright daylight.", "A tower by a lake in the middle of the night."),
    ("flower", "position", "mirror", ImageOps.mirror,
     "A flower, and a second one at the bottom right.", "A flower, and a second one at the bottom left."),
    ("flower", "attribute", "recolour", partial(recoloured, degrees=250, hues=(350, 50), least=0.3),
     "An orange flower in front of leaves.", "A purple flower in front of leaves."),
    ("flower", "object", "paste", partial(with_disc, name="chelsea", source=CAT, box=BLOSSOM),
     "A round flower in front of dark leaves.", "The face of a cat in front of dark leaves."),
    # Flawed on purpose, as raw sources are: an edit of which nothing came out, and a picture of something else.
    ("chelsea", "attribute", "failed", partial(recoloured, degrees=2), "A cat with green eyes.", "A cat with red eyes."),
    ("coffee", "object", "other picture", partial(instead, name="rocket"),
     "A cup of coffee with a spoon.", "A rocket between two high towers."),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split()))
    parser.add_argument("output", type=Path, help="folder that is made")
    target = parser.parse_args().output
    if target.exists():
        raise UserError(f"{target} is there already; name a folder that is not.")
    found = {name: photograph(name) for name in LICENCES}
    for side in ("before", "after"):
        (target / side).mkdir(parents=True)
    with (target / "texts.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("name", "caption_0", "caption_1", "type", "kind", "licence"))
        for number, (name, contrast, kind, edit, *captions) in enumerate(EDITS):
            pair = f"{number:02d}-{name}-{kind.replace(' ', '-')}"
            table.writerow((pair, *captions, contrast, kind, LICENCES[name]))
            found[name].save(target / "before" / f"{pair}.png")
            edit(found[name]).save(target / "after" / f"{pair}.png")
    print(f"{len(EDITS)} pairs of {len(found)} photographs in {target}")


if __name__ == "__main__":
    with exit_codes():
        main()

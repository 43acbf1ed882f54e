"""VisMin's training set (rabiulcste/vismin@29ce2c0), as JSON or as ``datasets`` keeps it: a captioned image and minimal edits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ....basics.errors import UserError
from ....data.tables import rows
from ..records import Record
from .raw import Raw, Source, need, rest, safe

TYPES = {
    "object": "object",
    "attribute": "attribute",
    "counting": "relation",
    "spatial": "position",  # two things change places
    "relation": "position",  # its older name
}
"""``category`` -> contrast type."""


def read(raw: Raw) -> Iterator[Record]:
    """A pair for each of an entry's ``negatives``; entries without any are counted. Paths that begin with a slash are meant below
    the image folder, and pictures inside a table are unpacked."""
    for number, (where, item) in enumerate(rows(raw.path)):
        need(item, ("image_path", "caption"), where, "an entry of VisMin")
        negatives = item.get("negatives")
        if not negatives:
            raw.leave_out("no negatives")
            continue
        if not isinstance(negatives, list):
            raise UserError(f"{where}: negatives is {negatives!r:.80}; it must be a list.")
        name = safe(item.get("image_id", number))
        first = _image(raw, item["image_path"], f"vismin/{name}", where)
        for place, negative in enumerate(negatives):
            spot = f"{where}, negative {place}"
            need(negative, ("edited_image_path", "edited_caption"), spot, "a negative of VisMin")
            category = str(negative.get("category") or "").split("(")[0].strip().lower()
            edit = str(negative.get("edit_id", place))
            yield from raw.record(
                spot,
                images=[first, _image(raw, negative["edited_image_path"], f"vismin/{name}_{safe(edit)}", spot)],
                captions=[item["caption"], negative["edited_caption"]],
                type=TYPES.get(category, "unknown"),
                kind=category,
                ids={"image": str(item.get("image_id", number)), "edit": edit},
                extra=rest(negative, "edited_image_path", "edited_caption", "edit_id")
                | rest(item, "image_path", "caption", "negatives", "image_id"),
            )


def _image(raw: Raw, value: Any, name: str, where: str) -> str:
    return str(PurePosixPath(raw.image(value, name, where).lstrip("/")))


SOURCE = Source(
    "vismin",
    "VisMin: images with minimal edits",
    "the training set: .json, .jsonl, or the folder with dataset_dict.json",
    read,
    licence="CC BY-SA 4.0 (the training set's hub card)",
    origins={
        "coco": "COCO 2017's images",
        "edited": "VisMin's release (Hugging Face: mair-lab)",
    },
)

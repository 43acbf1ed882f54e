"""FineCops-Ref (liujunzhuo/FineCops-Ref@7da19aa), its plain annotations: a referring expression, and one that its image belies.

A pair is a negative whose ``negative_cate`` is "image", joined with its positive by ``positive_id``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....data.tables import rows
from ..records import Record
from .lookup import Lookup
from .raw import Option, Raw, Source, need, rest

TYPES = {"object": "object", "attribute": "attribute", "relation": "relation"}
"""``negative_type`` -> contrast type."""
_POSITIVE = ("id", "image_id", "expression")
_NEGATIVE = (*_POSITIVE, "positive_id", "negative_type")


def read(raw: Raw) -> Iterator[Record]:
    """Pairs of two expressions. Negatives by text alone, those of type "order" (the authors of S-VCO drop them) and those without
    a positive are counted. UserError for the COCO form of the annotations, which has no ``positive_id``."""
    positives, negatives = raw.options.get("positives", "images"), raw.options.get("negatives", "neg_images")
    with Lookup() as known:
        for where, item in _annotations(raw.path):
            if "positive_id" not in item:
                need(item, _POSITIVE, where, "a positive of FineCops-Ref")
                known.put(str(item["id"]), {name: item[name] for name in _POSITIVE})
        for where, item in _annotations(raw.path):
            if "positive_id" not in item:
                continue
            need(item, _NEGATIVE, where, "a negative of FineCops-Ref")
            kind = str(item["negative_type"]).strip().lower()
            positive = known.get(str(item["positive_id"]))
            if item.get("negative_cate") != "image":
                raw.leave_out("the negative is a text, its image the positive's")
            elif kind == "order":
                raw.leave_out("negative_type is order")
            elif positive is None:
                raw.leave_out("its positive_id is in no file")
            else:
                yield from raw.record(
                    where,
                    images=[_image(raw, positives, positive["image_id"]), _image(raw, negatives, item["image_id"])],
                    captions=[positive["expression"], item["expression"]],
                    type=TYPES.get(kind, "unknown"),
                    kind=kind,
                    ids={"id": str(item["id"]), "positive_id": str(item["positive_id"])},
                    extra=rest(item, "id", "expression", "positive_id", "negative_type"),
                )


def _annotations(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of the plain annotations."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    plain = [file for file in files if "coco_format" not in file.name]
    if not plain:
        what = "only the COCO form of the annotations" if files else "no annotations"
        raise UserError(
            f"{path} holds {what}. finecops-ref takes the plain ones, whose negatives have a positive_id: a .json file or the "
            "folder that they are in."
        )
    for file in plain:
        yield from rows(file)


def _image(raw: Raw, folder: str, image_id: Any) -> str:
    """An id may have its ending; else the first ending that is there counts, .jpg where none is."""
    path = f"{folder}/{image_id}" if folder not in ("", ".") else str(image_id)
    if path.lower().endswith((".jpg", ".jpeg", ".png")):
        return path
    return next((found for ending in ("jpg", "png") if (found := f"{path}.{ending}") in raw.roots), f"{path}.jpg")


SOURCE = Source(
    "finecops-ref",
    "FineCops-Ref: referring expressions with edited images",
    "a plain annotation file, or the folder of several",
    read,
    origins={
        "images": "GQA's images, images.zip of its web site; --positives names their folder",
        "neg_images": "FineCops-Ref's release at figshare, which does not say where in it; --negatives names their folder",
    },
    options={
        "positives": Option("images", "folder of the positive images, GQA's, below --images"),
        "negatives": Option(
            "neg_images", "folder of the edited images below --images: the release does not document it"
        ),
    },
)

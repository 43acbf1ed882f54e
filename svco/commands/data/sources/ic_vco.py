"""IC-VCO's published pairs (OPPO-Mente-Lab/IC-VCO, hub: OPPOer/IC-VCO-Dataset): question, two images, two answers, spans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ....basics.errors import UserError
from ....data.tables import rows
from ..records import Record
from .raw import Raw, Source, need, rest

_PART = Path("preference", "train")
_FIELDS = ("prompt", "chosen", "rejected")
_IMAGES = ("images", "images_file_names")
"""The column's name once loaded, and the one that the hub's image folders give it in the file."""


def read(raw: Raw) -> Iterator[Record]:
    """Pairs with question and answers. Rows that lack a text or have other than two images are counted, as its own loader drops
    them. The spans that differ are kept under ``extra``."""
    table = raw.path / _PART if (raw.path / _PART).is_dir() else raw.path
    for number, (where, item) in enumerate(rows(table)):
        column = next((name for name in _IMAGES if name in item), None)
        if column is None:
            raise UserError(f"{where} lacks images; a pair of IC-VCO has images, {', '.join(_FIELDS)}.")
        if absent := [name for name in _FIELDS if name not in item]:
            need(item, _FIELDS, where, "a pair of IC-VCO")
            raise UserError(f"{where} lacks {', '.join(absent)}.")
        images = item[column]
        if not (isinstance(images, list) and len(images) == 2 and all(images)):
            raw.leave_out("other than two images")
        elif not all(isinstance(item[name], str) and item[name].strip() for name in _FIELDS):
            raw.leave_out("an empty text")
        else:
            yield from raw.record(
                where,
                query=item["prompt"],
                images=[
                    _image(raw, table, value, f"ic-vco/{number:08d}_{side}", where) for side, value in enumerate(images)
                ],
                responses=[item["chosen"], item["rejected"]],
                kind=item.get("category") if isinstance(item.get("category"), str) else None,
                ids={"row": str(number)},
                extra=rest(item, column, *_FIELDS),
            )


def _image(raw: Raw, table: Path, value: Any, name: str, where: str) -> str:
    """A path below an image folder; one that is relative to the table's folder, as image folders have it, is made so."""
    path = raw.image(value, name, where)
    if path not in raw.roots:
        folder = table if table.is_dir() else table.parent
        for root in raw.roots.folders:
            file = (folder / path).resolve()
            if file.is_relative_to(root.resolve()) and (file.is_file() or path.startswith("..")):
                return str(PurePosixPath(file.relative_to(root.resolve())))
    return path


SOURCE = Source(
    "ic-vco",
    "IC-VCO's pairs of edited images",
    "the data set's folder, or its preference/train/metadata.parquet",
    read,
    licence="Apache-2.0 (its hub card)",
    origins={"images": "the folder images of the data set (Hugging Face: OPPOer/IC-VCO-Dataset)"},
)

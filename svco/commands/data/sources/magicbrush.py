"""MagicBrush, and any editing set of its columns: ``source_img``, ``target_img``, ``instruction``, perhaps ``mask_img``.

Two pictures and what was asked for, but no question and no answer: ``svco data rewrite`` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....basics.errors import UserError
from ....data.tables import rows
from ..records import Record
from .raw import Raw, Source, need, rest, safe

_FIELDS = ("source_img", "target_img", "instruction")


def read(raw: Raw) -> Iterator[Record]:
    """Pairs with the instruction that leads from image 0 to image 1. Pictures inside a table are unpacked. A column ``type`` or
    ``kind`` is taken as such."""
    for number, (where, item) in enumerate(rows(raw.path)):
        need(item, _FIELDS, where, "a row of an editing set")
        if not isinstance(item["instruction"], str) or not item["instruction"].strip():
            raw.leave_out("no instruction")
            continue
        picture, turn = str(item.get("img_id", number)), str(item.get("turn_index", 1))
        name = f"edits/{safe(picture)}_{safe(turn)}"
        images = [raw.image(item[column], f"{name}_{side}", where) for side, column in enumerate(_FIELDS[:2])]
        extra = rest(item, *_FIELDS, "mask_img", "img_id", "turn_index", "type", "kind", "licence", "license")
        if (mask := item.get("mask_img")) is not None:
            extra["mask"] = raw.image(mask, f"{name}_mask", where)
        yield from raw.record(
            where,
            images=images,
            instruction=item["instruction"],
            type=_text(item, "type", where),
            kind=_text(item, "kind", where),
            ids={"image": picture, "turn": turn},
            licence=_text(item, "licence", where) or _text(item, "license", where) or _stated(item),
            extra=extra,
        )


def _stated(item: dict[str, Any]) -> str:
    """MagicBrush's own licence, of rows that have its two identifiers: another set's is not known."""
    return "CC BY 4.0 (MagicBrush's hub card)" if {"img_id", "turn_index"} <= item.keys() else ""


def _text(item: dict[str, Any], name: str, where: str) -> str | None:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {name} is {value!r:.80}; it must be a text.")
    return value


SOURCE = Source(
    "magicbrush",
    "MagicBrush, or another editing set of its columns; rewrite makes question and answers",
    "a table or the folder of several: .parquet, .arrow, .jsonl, .json, .csv",
    read,
)

"""Your own pictures: two folders with equal names, or pairs ``NAME_0.*`` and ``NAME_1.*`` in one, and a CSV of texts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....data.tables import csv_rows
from ..records import Record
from .lookup import Lookup
from .raw import Option, Raw, Source

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Of files that count as pictures, in the order in which they are looked for."""
_COLUMNS = (
    "name",
    "query",
    "response_0",
    "response_1",
    "caption_0",
    "caption_1",
    "instruction",
    "type",
    "kind",
    "system",
    "licence",
)


def read(raw: Raw) -> Iterator[Record]:
    """A pair for each row of the CSV, whose column ``name`` is the picture's (with or without its ending); the others, all
    optional, are ``query, response_0, response_1``, ``caption_0, caption_1``, ``instruction``, ``type``, ``kind``, ``system``,
    ``licence``; further ones are kept as ``extra``. Pictures that no row names are counted.

    UserError for a folder of another layout, a CSV without ``name``, and a name given twice.
    """
    if not raw.path.is_dir():
        raise UserError(f"{raw.path} is no folder; folder takes the one that the pictures are in.")
    texts = Path(raw.options.get("texts") or raw.path / "texts.csv")
    if not texts.is_file():
        raise UserError(
            f"There is no file {texts}: a CSV with a column 'name' and, of each pair, query, response_0, response_1, or "
            "caption_0, caption_1, or instruction. --texts names another."
        )
    sides = _sides(raw)
    with Lookup() as named:
        for line, row in csv_rows(texts):
            where = f"{texts}, line {line}"
            if "name" not in row:
                raise UserError(f"{where} has no name; the column 'name' says whose texts they are.")
            name = row["name"].removesuffix(Path(row["name"]).suffix if _is_picture(row["name"]) else "")
            if not named.put(name):
                raise UserError(f"{where}: the name {name!r} is there twice.")
            yield from _record(raw, row, name, sides, where)
        _count_unnamed(raw, sides, named)


def _sides(raw: Raw) -> tuple[str, str]:
    """The form of a picture's path without its ending, of each side: ``("before/{}", "after/{}")`` or ``("{}_0", "{}_1")``."""
    asked = raw.options.get("sides") or ""
    if asked:
        first, comma, second = asked.partition(",")
        for folder in (first, second):
            if not comma or not (raw.path / folder).is_dir():
                raise UserError(f"--sides is {asked!r}; it must be two folders in {raw.path}, such as before,after.")
        return f"{first}/{{}}", f"{second}/{{}}"
    with os.scandir(raw.path) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        return "{}_0", "{}_1"
    if len(folders) == 2:
        return f"{folders[0]}/{{}}", f"{folders[1]}/{{}}"
    raise UserError(
        f"{raw.path} has {len(folders)} folders. folder takes two, with equal names in both, or pictures NAME_0.jpg, "
        "NAME_1.jpg and no folder; --sides A,B names the two."
    )


def _record(raw: Raw, row: dict[str, Any], name: str, sides: tuple[str, str], where: str) -> Iterator[Record]:
    pairs = {}
    for field in ("response", "caption"):
        given = [row.get(f"{field}_{side}") for side in (0, 1)]
        if (given[0] is None) != (given[1] is None):
            raise UserError(f"{where}: of {field}_0 and {field}_1 one is empty.")
        pairs[f"{field}s"] = given if given[0] else None
    plain = {field: row.get(field) for field in ("query", "instruction", "type", "kind", "system", "licence")}
    extra = {column: text for column, text in row.items() if column not in _COLUMNS}
    images = [_file(raw, side.format(name)) for side in sides]
    return raw.record(where, images=images, ids={"name": name}, extra=extra, **plain, **pairs)


def _file(raw: Raw, stem: str) -> str:
    """The picture of this path without its ending; .jpg where there is none, which is counted as missing."""
    endings = (*ENDINGS, *(ending.upper() for ending in ENDINGS))
    return next((path for ending in endings if (path := stem + ending) in raw.roots), f"{stem}.jpg")


def _count_unnamed(raw: Raw, sides: tuple[str, str], named: Lookup) -> None:
    for side in sides:
        folder, _, form = side.rpartition("/")
        ending = form.removeprefix("{}")
        with os.scandir(raw.path / folder) as entries:
            for entry in entries:
                stem = Path(entry.name).stem
                if _is_picture(entry.name) and stem.endswith(ending) and stem.removesuffix(ending) not in named:
                    raw.leave_out(f"a picture of {folder or raw.path.name}/ that no row of the CSV names")


def _is_picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


SOURCE = Source(
    "folder",
    "your own pictures, in two folders or as NAME_0, NAME_1, with a CSV of texts",
    "the folder that the pictures, or the two folders of them, are in",
    read,
    options={
        "texts": Option("", "CSV with a column 'name' (default: texts.csv in the folder)"),
        "sides": Option("", "the two folders of side 0 and side 1, such as before,after (default: the only two)"),
    },
)

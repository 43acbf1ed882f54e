"""The official files of a benchmark: the rows of a split, in whatever form it was fetched, and the picture of a row.

A release is a folder with JSON, JSON lines, CSV or TSV and pictures beside, or with parquet or arrow (a clone of a hub's data
set, one that ``datasets`` saved) whose rows hold their pictures; those stay in their files until they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....basics.errors import UserError
from ....basics.shipped import is_inside
from ....data.pictures import decode_image, picture_file
from ....data.tables import READERS, Stored, rows, tables

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Path | bytes | Stored
"""A picture of a release: its file, its bytes, or where it stands in a table."""


_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def split_files(folder: Path, split: str) -> list[Path]:
    """The tables below ``folder`` that have the word ``split`` in their path, of one kind alone: a release may come in several.

    ``test`` finds ``test_2d.jsonl``, ``data/test-00000-of-00001.parquet``, ``test/data-00000-of-00001.arrow``; if files, or their
    folder, are called just like the split, only those. The kind is the first that is there, in the order of ``READERS``.
    """
    word = re.compile(rf"(?<![a-z0-9]){re.escape(split.lower())}(?![a-z0-9])")
    found = [file for file in tables(folder) if word.search(str(file.relative_to(folder)).lower())]
    just = [file for file in found if split.lower() in (_SHARD.sub("", file.stem).lower(), file.parent.name.lower())]
    found = just or found
    kinds = [kind for kind in READERS if any(file.suffix == kind for file in found)]
    return [file for file in found if file.suffix in kinds[:1]]


def split_rows(folder: Path, split: str, benchmark: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of :func:`split_files`, pictures by reference; UserError when there is none, and for a damaged file."""
    files = split_files(folder, split)
    if not files:
        raise UserError(
            f"{folder} holds no file of the split {split!r} ({', '.join(READERS)}). {benchmark} is the folder of its release."
        )
    for file in files:
        yield from rows(file, by_reference=True)


def need(row: Mapping[str, Any], where: str, *fields: str) -> None:
    """UserError when ``row`` lacks one of ``fields``; a null is none."""
    if absent := [name for name in fields if row.get(name) is None]:
        raise UserError(f"{where} lacks {', '.join(absent)}: it has {', '.join(row) or 'nothing'}.")


def picture(row: Mapping[str, Any], where: str, folder: Path, *fields: str, beside: Sequence[str] = ()) -> Picture:
    """The picture of ``row``: the first of ``fields`` that holds one, else the file that the first of them names, in ``folder``
    or in one of its folders ``beside``. UserError for a row without a picture and for a name that leads out; whether the file is
    there is not looked at."""
    cells = [row.get(field) for field in fields]
    cells = [cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell for cell in cells]
    if held := [cell for cell in cells if isinstance(cell, (Stored, bytes))]:
        return held[0]
    name = next((cell for cell in cells if cell), None)
    if name is None:
        raise UserError(f"{where} has no picture and names none ({', '.join(fields)}).")
    if not is_inside(name):
        raise UserError(f"{where} names the image {name!r}, outside of {folder}.")
    places = [folder / name, *(folder / place / name for place in beside)]
    return next((place for place in places if place.is_file()), places[0])


def picture_bytes(found: Picture) -> bytes:
    """The bytes of its file; BadSample if they cannot be read."""
    if isinstance(found, Stored):
        return found.read()
    return found if isinstance(found, bytes) else picture_file(found)


def opener(found: Picture | None, name: str) -> Callable[[], Image] | None:
    """What opens the picture of question ``name``, RGB; BadSample if it cannot be read. None of a question without one."""
    return None if found is None else lambda: decode_image(picture_bytes(found), f"the image of question {name}")


def check_pictures(found: Sequence[Picture | None], folder: Path) -> None:
    """UserError when pictures are not there; None is of a question without one."""
    missing = [image for image in found if isinstance(image, Path) and not image.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(found)} images of {folder} are missing, e.g. {missing[0]}. Is the release whole?"
        )

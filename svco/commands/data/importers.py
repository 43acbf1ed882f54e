"""Released data sets, in their own layouts, to records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.strict_json import parse_json
from .records import Record, make_record, read_records, read_text


def import_mvc_json(path: Path, left_out: list[BadSample]) -> list[Record]:
    """The S-VCO authors' released MVC format: a JSON list, side 0 = chosen, side 1 = rejected.

    Per item ``instruction_prompt``, ``chosen_images`` [path], ``rejected_images`` [path], ``chosen_response``,
    ``rejected_response`` and optionally ``system_prompt``; other keys are allowed and left out. Items that are no contrast go
    into ``left_out``.
    """
    text = read_text(path)
    try:
        items = parse_json(text)
    except ValueError as error:
        if text.lstrip().startswith("{"):
            raise UserError(
                f"{path} holds JSON lines, or one object; the MVC release is a JSON list. svco's own lines are imported as "
                "jsonl; of "
                "lines of MVC's items, jq -s . makes a list."
            ) from None
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise UserError(f"{path} must hold a non-empty JSON list, as the MVC release does.")
    found = []
    for number, item in enumerate(items):
        try:
            found.append(_mvc_record(item, f"{path}, item {number}", number))
        except BadSample as error:
            left_out.append(error)
    if not found:
        raise UserError(f"{path}: none of its {len(items)} items is a contrast; the first: {left_out[0]}.")
    return found


def _mvc_record(item: Any, where: str, number: int) -> Record:
    needed = ("instruction_prompt", "chosen_images", "rejected_images", "chosen_response", "rejected_response")
    if not isinstance(item, dict):
        raise UserError(f"{where} is not an object; an MVC item has {', '.join(needed)}.")
    if absent := [name for name in needed if name not in item]:
        raise UserError(f"{where} lacks {', '.join(absent)}; an MVC item has {', '.join(needed)}.")
    images = []
    for name in ("chosen_images", "rejected_images"):
        value = item[name]
        if not (isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)):
            raise UserError(f"{where}: {name} must be a list of one path, not {value!r}.")
        images.append(value[0])
    return make_record(
        {
            "query": item["instruction_prompt"],
            "images": images,
            "responses": [item["chosen_response"], item["rejected_response"]],
            "type": _mvc_type(images),
            "system": item.get("system_prompt"),
            "source": "mvc",
            "ids": {"item": str(number), "image_0": images[0], "image_1": images[1]},
        },
        where,
    )


_TYPE_OF_PART = {
    "left_right": "position",
    "up_down": "position",
    "counting": "relation",
    "noun": "object",
    "adjective": "attribute",
    "reverse": "relation",
}


def _mvc_type(images: list[str]) -> str:
    """The contrast type where the negative's path tells it (CounterCurate's folders and file endings)."""
    path = Path(str(images[1]))
    parts = [*path.parts[:-1], path.stem.rpartition("_")[2]]
    return next((_TYPE_OF_PART[part] for part in parts if part in _TYPE_OF_PART), "unknown")


IMPORTERS: dict[str, Callable[[Path, list[BadSample]], list[Record]]] = {
    "mvc-json": import_mvc_json,
    "jsonl": read_records,
}
"""Name on the command line -> reader."""

"""The S-VCO authors' released MVC format: a JSON list, side 0 = chosen, side 1 = rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....data.tables import items
from ..records import Record
from . import countercurate
from .raw import Raw, Source, need, rest

_FIELDS = ("instruction_prompt", "chosen_images", "rejected_images", "chosen_response", "rejected_response")


def read(raw: Raw) -> Iterator[Record]:
    """Per item ``instruction_prompt``, ``chosen_images`` [path], ``rejected_images`` [path], ``chosen_response``,
    ``rejected_response`` and optionally ``system_prompt``; other keys are kept as ``extra``."""
    empty = True
    for number, item in items(raw.path):
        if not isinstance(number, int):
            raise UserError(
                f"{raw.path} holds JSON lines, or one object; the MVC release is a JSON list. svco's own lines are imported as "
                "jsonl; of lines of MVC's items, jq -s . makes a list."
            )
        yield from _record(raw, item, f"{raw.path}, item {number}", number)
        empty = False
    if empty:
        raise UserError(f"{raw.path} must hold a non-empty JSON list, as the MVC release does.")


def _record(raw: Raw, item: Any, where: str, number: int) -> Iterator[Record]:
    need(item, _FIELDS, where, "an MVC item")
    images = []
    for name in ("chosen_images", "rejected_images"):
        value = item[name]
        if not (isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)):
            raise UserError(f"{where}: {name} must be a list of one path, not {value!r}.")
        images.append(value[0])
    kind, contrast = _type(images)
    return raw.record(
        where,
        query=item["instruction_prompt"],
        images=images,
        responses=[item["chosen_response"], item["rejected_response"]],
        type=contrast,
        kind=kind,
        system=item.get("system_prompt"),
        source=raw.name or "mvc",
        ids={"item": str(number), "image_0": images[0], "image_1": images[1]},
        extra=rest(item, *_FIELDS, "system_prompt"),
    )


_TYPE_OF_PART = countercurate.TYPES | countercurate.GENERATED


def _type(images: list[Any]) -> tuple[str | None, str]:
    """(kind, contrast type) where the negative's path tells them: CounterCurate's folders and endings of names."""
    path = Path(str(images[1]))
    parts = [*path.parts[:-1], path.stem.rpartition("_")[2]]
    kind = next((part for part in parts if part in _TYPE_OF_PART), None)
    return kind, _TYPE_OF_PART.get(kind or "", "unknown")


SOURCE = Source(
    "mvc-json",
    "the S-VCO authors' release",
    "the release's .json",
    read,
    origins={
        "flickr30k": "the Flickr30k images, on request from the University of Illinois (Flickr30k Entities)",
        "Flickr30k-Counterfactuals": "CounterCurate's data set Flickr30k-Counterfactuals (Hugging Face: HanSolo9682)",
        "finecops-ref": "FineCops-Ref's release; its positive images are GQA's",
    },
)

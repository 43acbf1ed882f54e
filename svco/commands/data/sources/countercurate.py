"""CounterCurate's Flickr30k-Counterfactuals (HanSolo9682/CounterCurate@fccfc4e), unpacked: the folder ``train_data``.

Three parts have both images: ``left_right.json``, ``up_down.json`` and ``counting.json``, {Flickr30k id: [{pos, neg, image_id,
…}]}, with ``<part>/pos/{id}.jpg``. The fourth, ``dalle_gen_counterfactuals.json``, {id: {noun, adjective, reverse: caption or
null}}, is about Flickr30k's own photographs, which are not shipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....basics.errors import BadSample, UserError
from ....data.pictures import decode_image
from ....data.tables import items
from ..records import Record
from .lookup import Lookup
from .raw import Option, Raw, Source, need, rest

TYPES = {"left_right": "position", "up_down": "position", "counting": "relation"}
"""Part -> contrast type."""
GENERATED = {"noun": "object", "adjective": "attribute", "reverse": "relation"}
"""Of the fourth part: kind -> contrast type."""
_FOURTH, _CAPTIONS, _ORIGINALS = "dalle_gen_counterfactuals", "flickr30k_image_captions.json", "flickr30k-images"
PARTS = (*TYPES, _FOURTH)


def read(raw: Raw) -> Iterator[Record]:
    """The pairs of the parts that are there, or of those asked for; captions, no questions.

    A left-right negative that is absent is made: the positive mirrored, as the authors' script makes it, kept without loss.
    Records without a negative image or caption are counted, not imported; ``input_image``, a path on the authors' machine, is
    dropped. UserError where a part asked for, or the captions that a part needs, are not there.
    """
    folder = raw.path
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; countercurate takes the release's train_data.")
    asked = [part.strip() for part in raw.options.get("parts", "").split(",") if part.strip()]
    if unknown := [part for part in asked if part not in PARTS]:
        raise UserError(f"--parts {unknown[0]}: there is no such part; they are {', '.join(PARTS)}.")
    there = [part for part in asked or PARTS if (folder / f"{part}.json").is_file()]
    absent = [f"{part}.json" for part in asked or PARTS if part not in there]
    if not there or (asked and absent):
        raise UserError(
            f"{folder} lacks {', '.join(absent)}. countercurate takes the folder train_data of the data set "
            "Flickr30k-Counterfactuals (Hugging Face: HanSolo9682), unpacked."
        )
    if absent:
        raw.notes.append(f"not there, so not imported: {', '.join(absent)}")
    with Lookup() as seen:
        for part in there:
            yield from _generated(raw, folder) if part == _FOURTH else _drawn(raw, folder, part, seen)


def _drawn(raw: Raw, folder: Path, part: str, seen: Lookup) -> Iterator[Record]:
    """A part that brings both images."""
    file = folder / f"{part}.json"
    mirror = ("", "")
    for picture, entries in items(file):
        if not isinstance(entries, list):
            raise UserError(f"{file}, {picture!r} is not a list of records.")
        for number, item in enumerate(entries):
            where = f"{file}, {picture!r}, record {number}"
            need(item, ("pos", "neg"), where, "a record of CounterCurate")
            # It counts from 0 again for each picture, and the counting generator writes none: then the place tells.
            image_id = str(item.get("image_id", number))
            if not seen.put(f"{part}/{picture}/{image_id}"):
                raw.leave_out(f"{part}: the same picture and image_id again")
                continue
            positive, negative = f"{part}/pos/{picture}.jpg", _negative(raw, part, str(picture), image_id)
            if negative is None and part != "left_right":
                raw.leave_out(f"{part}: no negative image")
                continue
            if negative is None:
                if mirror[0] != positive:  # all records of a picture share one mirror
                    mirror = (positive, _mirror(raw, positive, f"{part}/neg/{picture}.png"))
                negative = mirror[1]
            yield from raw.record(
                where,
                images=[positive, negative],
                captions=[item["pos"], item["neg"]],
                type=TYPES[part],
                kind=part,
                ids={"kind": part, "id": str(picture), "image_id": image_id},
                extra=rest(item, "pos", "neg", "image_id", "input_image"),
            )


def _negative(raw: Raw, part: str, picture: str, image_id: str) -> str | None:
    """The first that is there of the places where the authors put them."""
    places = (f"{picture}_{image_id}.png", f"{picture}_{image_id}.jpg", f"{picture}.jpg")
    return next((path for name in places if (path := f"{part}/neg/{name}") in raw.roots), None)


def _mirror(raw: Raw, positive: str, negative: str) -> str:
    """Makes the picture that left and right are exchanged in; its path, which is missing where the positive is."""
    if (file := raw.roots.find(positive)) is None:
        raw.stands_for = (negative, positive)
        return negative
    from PIL import ImageOps

    try:
        picture = ImageOps.mirror(decode_image(file.read_bytes(), str(file)))
    except BadSample as error:
        raise UserError(f"{error}. Fetch it again, or remove it and allow --max-missing.") from None
    return raw.make(negative, lambda target: picture.save(target, "PNG"))


def _generated(raw: Raw, folder: Path) -> Iterator[Record]:
    """The fourth part: up to three generated pictures for a photograph of Flickr30k."""
    file = folder / f"{_FOURTH}.json"
    with Lookup() as captions:
        if not (folder / _CAPTIONS).is_file():
            others = ",".join(part for part in TYPES if (folder / f"{part}.json").is_file()) or "left_right"
            raise UserError(
                f"{folder / _CAPTIONS} is not there; {file.name} needs the photographs' captions. It is part of the same data "
                f"set. Fetch it, or import without this part: --parts {others}."
            )
        for picture, texts in items(folder / _CAPTIONS):
            captions.put(str(picture), texts[0] if isinstance(texts, list) and texts else texts)
        for picture, item in items(file):
            where = f"{file}, {picture!r}"
            if not isinstance(item, dict):
                raise UserError(f"{where} is not an object; it has {', '.join(GENERATED)}.")
            caption = captions.get(str(picture))
            for kind in GENERATED:
                if reason := _lack(raw, str(picture), kind, item, caption):
                    raw.leave_out(f"{_FOURTH}: {reason}")
                else:
                    yield from _of_kind(raw, where, str(picture), kind, item, caption)


def _lack(raw: Raw, picture: str, kind: str, item: dict[str, Any], caption: Any) -> str | None:
    """Why there is no pair of this kind, or None."""
    if not item.get(kind):
        return f"no {kind} caption"
    if not caption:
        return "the photograph has no caption"
    return None if f"{_FOURTH}/{picture}_{kind}.jpg" in raw.roots else "no negative image"


def _of_kind(raw: Raw, where: str, picture: str, kind: str, item: dict[str, Any], caption: Any) -> Iterator[Record]:
    return raw.record(
        f"{where}, {kind}",
        images=[f"{_ORIGINALS}/{picture}.jpg", f"{_FOURTH}/{picture}_{kind}.jpg"],
        captions=[caption, item[kind]],
        type=GENERATED[kind],
        kind=kind,
        ids={"kind": kind, "id": picture},
        extra=rest(item, *GENERATED),
    )


_AT_HOME = "CounterCurate's data set Flickr30k-Counterfactuals (Hugging Face: HanSolo9682)"
SOURCE = Source(
    "countercurate",
    "CounterCurate: left and right, up and down, counts, generated counterfactuals",
    "the release's folder train_data",
    read,
    licence="cc (the hub card names no version)",
    origins={
        _ORIGINALS: "the Flickr30k images, on request from the University of Illinois; CounterCurate ships none of them",
        **{part: _AT_HOME for part in PARTS},
    },
    options={"parts": Option("", f"which, of {','.join(PARTS)} (default: all that are there)")},
)

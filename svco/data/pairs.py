"""A contrast pair as it is stored and as it travels: text, two encoded images, and the checks on both.

On disk a pair is one WebDataset sample with three members, ``{key}.0.jpg``, ``{key}.1.jpg`` (or ``.png``) and
``{key}.pair.json``; ``data_shards/README.md`` is the format's description for people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..basics.errors import BadSample, UserError
from ..basics.strict_json import json_text, parse_json
from .pictures import as_png
from .schema import CONTRASTS, checked

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA_VERSION = 1
IMAGE_MEMBERS = (("0.jpg", "0.png"), ("1.jpg", "1.png"))
"""Side -> what its picture's member may be called; a sample has one of them."""
TEXT_MEMBER = "pair.json"
MEMBERS = (*IMAGE_MEMBERS[0], *IMAGE_MEMBERS[1], TEXT_MEMBER)
LARGEST_TEXT = 1 << 24
"""Bytes that a ``pair.json`` may have in a shard (an image: ``pictures.MAX_BYTES``): no sample fills a loader's memory."""

__all__ = [
    "CONTRASTS",
    "IMAGE_MEMBERS",
    "MEMBERS",
    "Pair",
    "PairSource",
    "PairText",
    "content_of",
    "decode_text",
    "encode_text",
]


@dataclass(frozen=True)
class PairText:
    """A pair without its images: everything ``pair.json`` holds, plus the key."""

    key: str
    """Unique in its split; the part of the tar member's name before the first dot."""
    query: str
    """What the user asks, shared by both sides."""
    responses: tuple[str, str]
    """Response of side 0 and of side 1; each is true of its own image only."""
    contrast: str = "unknown"
    """One of ``CONTRASTS``."""
    source: str = ""
    """Where the pair comes from (data set name)."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The source's own identifiers, e.g. ``{"image_0": "flickr30k/123.jpg"}``."""
    system: str | None = None
    """System prompt, or None."""
    kind: str | None = None
    """A finer contrast type of the source's own, e.g. ``colour``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Ground truth the source knows of the images (free form); never shown to the model."""


@dataclass(frozen=True)
class Pair:
    """A contrast pair: two images, and under one query a response that is true of each."""

    text: PairText
    """Key, query, responses, and what is known of the pair."""
    images: tuple[bytes, bytes]
    """Image of side 0 and of side 1 as a file's bytes: JPEG or PNG in shards, any of ``pictures.FORMATS`` elsewhere."""

    @classmethod
    def of(
        cls,
        query: str,
        responses: Sequence[str],
        images: Sequence[Image | Path | str | bytes],
        *,
        key: str = "pair",
        system: str | None = None,
    ) -> Pair:
        """A pair made by hand: ``responses[s]`` is true of ``images[s]`` and not of the other one.

        An image is a ``PIL.Image`` (kept without loss, as PNG), the path of an image file, or such a file's bytes. ``key`` names
        the pair in messages and, where images are corrupted, decides how. BadSample for a text that no shard may hold and for
        a ``PIL.Image`` that no model can be shown, UserError for a file that cannot be read and for more or fewer than two.
        """
        given: Any = list(responses)  # two, or the schema says so
        text = _text(key, {"query": query, "responses": given, "system": system}, f"Pair.of: sample {key!r}")
        if len(images) != 2:
            raise UserError(f"Pair.of: the pair {key!r} has {len(images)} images; a pair has two.")
        first, second = (_file_of(image, f"Pair.of: {key!r}: image {side}") for side, image in enumerate(images))
        return cls(text, (first, second))


def content_of(pixels: Sequence[str], query: str, responses: Sequence[str], system: str | None) -> bytes:
    """What makes a pair the pair it is, as 16 bytes: one with the same is that pair again. ``pixels``: what its images are known
    by."""
    return hashlib.sha256(json_text([*pixels, query, *responses, system]).encode()).digest()[:16]


class PairSource(Protocol):
    """Pairs by their number, from 0: a shard set, or pairs that lie elsewhere. Picklable: a loader's workers read them."""

    def __len__(self) -> int: ...

    def key(self, i: int) -> str:
        """The key of pair ``i``."""
        ...

    def image_sizes(self, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """((width, height), (width, height)) of its images, upright; (0, 0) for one that cannot be read."""
        ...

    def pixels(self, i: int) -> tuple[str, str]:
        """What its images are known by, equal where they show the same; empty for one that cannot be read."""
        ...

    def read(self, i: int) -> Pair:
        """The pair; BadSample where it cannot be read."""
        ...

    def read_text(self, i: int) -> PairText:
        """Its text alone; BadSample as in ``read``."""
        ...


def _file_of(image: Image | Path | str | bytes, where: str) -> bytes:
    """The bytes of an image file that shows ``image``."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise UserError(f"The image {image} cannot be read: {error.strerror}.") from None
    return as_png(image, where)


def encode_text(text: PairText) -> bytes:
    """``pair.json``: UTF-8, keys sorted, so that equal pairs are equal bytes. Optional fields are left out when empty."""
    required = {
        "schema": SCHEMA_VERSION,
        "query": text.query,
        "responses": list(text.responses),
        "contrast": text.contrast,
        "source": text.source,
        "ids": dict(text.ids),
    }
    optional = {"system": text.system, "kind": text.kind, "facts": dict(text.facts)}
    present = {name: value for name, value in optional.items() if value}
    return json_text(required | present, sort_keys=True, ascii_only=False).encode()


def decode_text(key: str, data: bytes, where: str) -> PairText:
    """Parses and checks ``pair.json`` of sample ``key``; ``where`` (the shard) goes into the message of a BadSample."""
    spot = f"{where}: sample {key!r}: {TEXT_MEMBER}"
    try:
        record = parse_json(data)
    except ValueError as error:
        raise BadSample("bad-json", f"{spot} is not JSON ({error})") from None
    version = record.get("schema") if isinstance(record, dict) else None
    if isinstance(record, dict) and (type(version) is not int or version != SCHEMA_VERSION):
        raise BadSample("bad-schema", f"{spot} has schema {version!r}; this version reads {SCHEMA_VERSION}")
    return _text(key, record, spot)


def _text(key: str, record: Any, spot: str) -> PairText:
    return PairText(key=key, **checked(record, spot, more=("schema",)))

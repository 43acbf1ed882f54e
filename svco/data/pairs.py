"""A contrast pair as it is stored and as it travels: text, two encoded images, and the checks on both.

On disk a pair is one WebDataset sample with three members, ``{key}.0.jpg``, ``{key}.1.jpg`` and ``{key}.pair.json``;
``data_shards/README.md`` is the format's description for people.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import BadSample, UserError
from ..basics.strict_json import parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA_VERSION = 1
IMAGE_MEMBERS = ("0.jpg", "1.jpg")
TEXT_MEMBER = "pair.json"
MEMBERS = (*IMAGE_MEMBERS, TEXT_MEMBER)

CONTRASTS = ("object", "attribute", "relation", "position", "scene", "action", "unknown")
"""MVC's contrast types: object replacement, attribute binding, relation or number modification, position flipping; two higher
ones that MVC has not: the scene (place, weather, time of day) and the action; ``unknown`` for sources that do not say."""


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
    """Image of side 0 and of side 1 as a file's bytes: JPEG in shards, any format that Pillow reads elsewhere."""

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
        the pair in messages and, where images are corrupted, decides how. BadSample for a text that no shard may hold,
        UserError for an image that cannot be read and for more or fewer than two.
        """
        given: Any = tuple(responses)  # two, or decode_text says so
        text = PairText(key, query, given, system=system)
        text = decode_text(key, encode_text(text), "Pair.of")  # as strict as of a shard
        if len(images) != 2:
            raise UserError(f"Pair.of: the pair {key!r} has {len(images)} images; a pair has two.")
        return cls(text, (_file_of(images[0]), _file_of(images[1])))


def _file_of(image: Image | Path | str | bytes) -> bytes:
    """The bytes of an image file that shows ``image``."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise UserError(f"The image {image} cannot be read: {error.strerror}.") from None
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


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
    return json.dumps(required | present, sort_keys=True, ensure_ascii=False).encode()


def decode_text(key: str, data: bytes, where: str) -> PairText:
    """Parses and checks ``pair.json`` of sample ``key``; ``where`` (the shard) goes into the message of a BadSample."""
    spot = f"{where}: sample {key!r}: {TEXT_MEMBER}"
    try:
        record = parse_json(data)
    except ValueError as error:
        raise BadSample("bad-json", f"{spot} is not JSON ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA_VERSION:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise BadSample("bad-schema", f"{spot} has schema {found!r}; this version reads {SCHEMA_VERSION}")
    query, responses = record.get("query"), record.get("responses")
    if not isinstance(query, str) or not query.strip():
        raise BadSample("bad-schema", f"{spot}: field 'query' must be a non-empty string, not {query!r}")
    if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str) for r in responses)):
        raise BadSample("bad-schema", f"{spot}: field 'responses' must be two strings, not {responses!r}")
    for side, response in enumerate(responses):
        if not response.strip():
            raise BadSample("empty-response", f"{spot}: response {side} is empty")
    if record.get("contrast", "unknown") not in CONTRASTS:
        raise BadSample(
            "bad-schema", f"{spot}: field 'contrast' is {record['contrast']!r}; one of {', '.join(CONTRASTS)}"
        )
    for name, kind in (("source", str), ("ids", dict), ("system", str), ("kind", str), ("facts", dict)):
        if record.get(name) is not None and not isinstance(record[name], kind):
            raise BadSample("bad-schema", f"{spot}: field {name!r} must be a {kind.__name__}, not {record[name]!r}")
    return PairText(
        key=key,
        query=query,
        responses=(responses[0], responses[1]),
        contrast=record.get("contrast") or "unknown",
        source=record.get("source") or "",
        ids=record.get("ids") or {},
        system=record.get("system") or None,
        kind=record.get("kind"),
        facts=record.get("facts") or {},
    )


def decode_image(data: bytes, where: str) -> Image:
    """Decodes JPEG (or any Pillow format) bytes to an RGB ``PIL.Image``; BadSample if damaged or cut short."""
    from PIL import Image as Images

    try:
        with Images.open(io.BytesIO(data)) as image:
            return image.convert("RGB")  # convert() loads: a truncated file raises here and not later
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... for damaged files
        raise BadSample("undecodable-image", f"{where} cannot be decoded ({type(error).__name__}: {error})") from None

"""Records: one JSON object a line, svco's own simple format, and what every importer produces.

    {"query": …, "images": [path, path], "responses": [text, text], "type": …, "system": …, "source": …, "ids": {…}}

``images[s]`` is the picture of which ``responses[s]`` is true, relative to one of the image folders. ``images`` is required, and
either ``query`` with ``responses``, or something that ``rewrite`` can make them of: ``captions`` (one of each image) or an
``instruction`` (the edit that makes image 1 of image 0). Texts have to pass the schema of ``pair.json``
(:mod:`svco.data.schema`), where ``type``, ``kind`` and ``facts`` are told of too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.files import replacing
from ...basics.strict_json import json_text
from ...data.schema import NO_CONTRAST, checked, shortened
from ...data.tables import file_lines

NOT_STATED = "not stated"
"""The licence of a sample whose source names none."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One pair, its images still files."""

    query: str = ""
    """What the user asks; empty until the pair is rewritten."""
    images: tuple[str, str]
    """Paths below an image folder, with forward slashes."""
    responses: tuple[str, str] = ("", "")
    """The response true of each image; empty until the pair is rewritten."""
    captions: tuple[str, str] | None = None
    """What the source says of each image."""
    instruction: str | None = None
    """The edit that makes image 1 of image 0, as the source words it."""
    type: str = "unknown"
    """Contrast type."""
    kind: str | None = None
    """A finer type, in the source's own words."""
    system: str | None = None
    """System prompt."""
    source: str = ""
    """Data set."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The source's identifiers."""
    licence: str = ""
    """As the source states it, or ``NOT_STATED``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Ground truth the source knows of the images."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the source has of the pair, under its own names."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Similarities of the two images, from ``svco data filter``."""
    stages: Mapping[str, Any] = field(default_factory=dict)
    """Stage -> what it did to the pair and with what: models, thresholds, digests of prompts."""

    @property
    def written(self) -> bool:
        """Whether it has a question and two answers."""
        return bool(self.query)

    @property
    def provenance(self) -> dict[str, Any]:
        """What is known of how the pair came to be, without what is empty."""
        known = {name: getattr(self, name) for name in ("licence", "extra", "scores", "stages")}
        return {name: value for name, value in known.items() if value}


_OWN = ("images", "captions", "instruction", "licence", "extra", "scores", "stages")
"""What a record has besides the text of a pair."""
_STANDS_IN = ("a", "b")
"""For the answers, where the schema looks at a pair that has none yet."""


def make_record(raw: Any, where: str) -> Record:
    """Checks one JSON object; ``where`` (file and line) goes into the message. UserError for a mistake, BadSample for a record
    that is well written and no contrast."""
    try:
        return _made(raw, where)
    except BadSample as error:
        if error.reason in NO_CONTRAST:
            raise
        raise UserError(f"{error}.") from None


def _made(raw: Any, where: str) -> Record:
    unwritten = isinstance(raw, dict) and not (raw.get("query") or raw.get("responses"))
    captions, instruction = (raw.get("captions"), raw.get("instruction")) if isinstance(raw, dict) else (None, None)
    if unwritten and not (captions or instruction) and not {"query", "responses"} & set(raw):
        raise BadSample(
            "bad-schema",
            f"{where}: fields 'query' and 'responses' are missing, and there are neither 'captions' nor an 'instruction' that "
            "svco data rewrite could make them of",
        )
    looked_at = raw
    if unwritten and (captions or instruction):
        looked_at = {**raw, "query": "?", "responses": captions or list(_STANDS_IN)}
    try:
        fields = checked(looked_at, where, contrast="type", more=_OWN)
    except BadSample as error:
        if captions and unwritten:  # they were looked at in the answers' place
            raise BadSample(error.reason, str(error).replace("responses", "captions")) from None
        raise
    if unwritten:
        fields |= {"query": "", "responses": ("", "")}
    more = {name: raw[name] for name in _OWN[1:] if raw.get(name) is not None}
    for name, value in more.items():
        if name == "captions":
            good, said = isinstance(value, list) and [type(text) for text in value] == [str, str], "two strings"
        elif name in ("instruction", "licence"):
            good, said = isinstance(value, str), "a string"
        else:
            good, said = isinstance(value, dict), "an object"
        if not good:
            raise UserError(f"{where}: field {name!r} must be {said}, not {shortened(value)}.")
    if captions:
        more["captions"] = tuple(captions)
    for name, value in more.get("scores", {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{where}: the score {name!r} is {value!r}, which is no finite number.")
    first, second = _paths(raw.get("images"), where)
    return Record(images=(first, second), type=fields.pop("contrast"), **fields, **more)


def _paths(images: Any, where: str) -> list[str]:
    if not (isinstance(images, list) and len(images) == 2 and all(isinstance(p, str) and p.strip() for p in images)):
        raise UserError(f"{where}: field 'images' must be two non-empty strings, not {shortened(images)}.")
    for path in images:
        if leads_out(path):
            raise UserError(
                f"{where}: the image path {path!r} leads out of the image folder; paths must be relative to it."
            )
    if images[0] == images[1] or PurePosixPath(images[0]) == PurePosixPath(images[1]):
        raise BadSample("same-images", f"{where}: both images are {images[0]!r}, which is no contrast")
    return images


def leads_out(path: str) -> bool:
    """Whether a path is not one below an image folder."""
    return path.startswith("/") or ".." in path.split("/") or "\0" in path


def stream_records(path: Path, left_out: list[BadSample] | None = None) -> Iterator[Record]:
    """The records of a JSONL file, one at a time; UserError naming file and line at the first that is wrong. Those that are no
    contrast go into ``left_out``, or are mistakes where that is None."""
    empty, bad = True, left_out if left_out is not None else []
    for number, raw in file_lines(path):
        try:
            yield make_record(raw, f"{path}, line {number}")
            empty = False
        except BadSample as error:
            if left_out is None:
                raise UserError(f"{error}.") from None
            left_out.append(error)
    if empty:
        why = f": all {len(bad)} of it are no contrast, the first: {bad[0]}" if bad else ""
        raise UserError(f"{path} holds no records{why}.")


def read_records(path: Path, left_out: list[BadSample] | None = None) -> list[Record]:
    """All records of a JSONL file, as :func:`stream_records` gives them."""
    return list(stream_records(path, left_out))


def as_line(record: Record) -> str:
    """``record`` as a line of JSON, without what is empty."""
    absent: dict[str, Any] = {"responses": ("", ""), "type": "unknown"}
    present = {name: value for name, value in vars(record).items() if value and value != absent.get(name)}
    return json_text(present, ascii_only=False) + "\n"


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Replaces the file ``path``; nothing is left of it if ``records`` fail."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(map(as_line, records))

"""Records: one JSON object a line, svco's own simple format, and what every importer produces.

    {"query": …, "images": [path, path], "responses": [text, text], "type": …, "system": …, "source": …, "ids": {…}}

``images[s]`` is the picture of which ``responses[s]`` is true, relative to one of the image folders. ``images`` is required, and
either ``query`` with ``responses``, or something that ``rewrite`` can make them of: ``captions`` (one of each image) or an
``instruction`` (the edit that makes image 1 of image 0). ``type`` is one of ``pairs.CONTRASTS``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.files import replacing
from ...basics.strict_json import parse_json
from ...data.pairs import CONTRASTS

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


_TEXTS = ("query", "instruction", "kind", "system", "source", "licence")
_PAIRS = ("images", "responses", "captions")
_OBJECTS = ("ids", "extra", "scores", "stages")
_KNOWN = ("query", "images", "responses", "captions", "instruction", "type", *_TEXTS[2:], *_OBJECTS)


def make_record(raw: Any, where: str) -> Record:
    """Checks one JSON object; ``where`` (file and line) goes into the message of a UserError."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a record is a JSON object, not {raw!r}.")
    if unknown := sorted(set(raw) - set(_KNOWN)):
        raise UserError(f"{where}: unknown field {unknown[0]!r}; a record has {', '.join(_KNOWN)}.")
    found: dict[str, Any] = {}
    for name in _PAIRS:
        if (value := raw.get(name)) is not None or name == "images":
            if not (
                isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and v.strip() for v in value)
            ):
                raise UserError(f"{where}: field {name!r} must be two non-empty strings, not {value!r}.")
            found[name] = tuple(value)
    for name in _TEXTS:
        if (value := raw.get(name)) is not None:
            if not isinstance(value, str):
                raise UserError(f"{where}: field {name!r} must be a string, not {value!r}.")
            found[name] = value
    for name in _OBJECTS:
        if (value := raw.get(name)) is not None:
            if not isinstance(value, dict):
                raise UserError(f"{where}: field {name!r} must be an object, not {value!r}.")
            found[name] = value
    found["ids"] = {name: str(value) for name, value in found.get("ids", {}).items()}
    found["type"] = raw.get("type") or "unknown"
    return _checked(Record(**found), where)


def _checked(record: Record, where: str) -> Record:
    """``record``, whose fields are of the right kinds; UserError for one that no stage can use."""
    asked, answered = bool(record.query.strip()), record.responses != ("", "")
    if asked is not answered:
        absent = "responses" if asked else "query"
        raise UserError(f"{where}: field {absent!r} is missing; a question and its two answers go together.")
    if not (asked or record.captions or record.instruction):
        raise UserError(
            f"{where}: fields 'query' and 'responses' are missing, and there are neither 'captions' nor an 'instruction' that "
            "svco data rewrite could make them of."
        )
    if record.type not in CONTRASTS:
        raise UserError(f"{where}: field 'type' is {record.type!r}; one of {', '.join(CONTRASTS)}.")
    for path in record.images:
        if leads_out(path):
            raise UserError(
                f"{where}: the image path {path!r} leads out of the image folder; paths must be relative to it."
            )
    for name, value in record.scores.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{where}: the score {name!r} is {value!r}, which is no finite number.")
    return record


def leads_out(path: str) -> bool:
    """Whether a path is not one below an image folder."""
    return path.startswith("/") or ".." in path.split("/")


def stream_records(path: Path) -> Iterator[Record]:
    """The records of a JSONL file, one at a time; UserError naming file and line at the first that is wrong."""
    empty = True
    for number, raw in json_lines(path):
        yield make_record(raw, f"{path}, line {number}")
        empty = False
    if empty:
        raise UserError(f"{path} holds no records.")


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file."""
    return list(stream_records(path))


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, what it holds) of each line of JSON that is not blank; UserError for what cannot be read or is no JSON."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    try:
                        yield number, parse_json(line)
                    except ValueError as error:
                        raise UserError(f"{path}, line {number} is not JSON: {error}") from None
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def as_line(record: Record) -> str:
    """``record`` as a line of JSON, without what is empty."""
    absent: dict[str, Any] = {"responses": ("", ""), "type": "unknown"}
    present = {name: value for name, value in vars(record).items() if value and value != absent.get(name)}
    return json.dumps(present, ensure_ascii=False, allow_nan=False) + "\n"


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Replaces the file ``path``; nothing is left of it if ``records`` fail."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(map(as_line, records))

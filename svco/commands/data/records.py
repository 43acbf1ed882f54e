"""Records: one JSON object a line, svco's own simple format, and what every importer produces.

    {"query": …, "images": [path, path], "responses": [text, text], "type": …, "system": …, "source": …, "ids": {…}}

``images[s]`` is the picture of which ``responses[s]`` is true, relative to the image folder. ``query``, ``images`` and
``responses`` are required; ``type`` is one of ``pairs.CONTRASTS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...basics.errors import UserError
from ...basics.files import replacing
from ...basics.progress import Progress
from ...basics.strict_json import json_text, parse_json
from ...data.pairs import CONTRASTS

_KNOWN = ("query", "images", "responses", "type", "system", "source", "ids")


@dataclass(frozen=True)
class Record:
    """One pair, its images still files."""

    query: str
    """What the user asks."""
    images: tuple[str, str]
    """Paths below the image folder, with forward slashes."""
    responses: tuple[str, str]
    """The response true of each image."""
    type: str = "unknown"
    """Contrast type."""
    system: str | None = None
    """System prompt."""
    source: str = ""
    """Data set."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The source's identifiers."""


def make_record(raw: Any, where: str) -> Record:
    """Checks one JSON object; ``where`` (file and line) goes into the message of a UserError."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a record is a JSON object, not {raw!r}.")
    if unknown := sorted(set(raw) - set(_KNOWN)):
        raise UserError(f"{where}: unknown field {unknown[0]!r}; a record has {', '.join(_KNOWN)}.")
    for name in ("images", "responses"):
        value = raw.get(name)
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and v.strip() for v in value)):
            raise UserError(f"{where}: field {name!r} must be two non-empty strings, not {value!r}.")
    if not isinstance(raw.get("query"), str) or not raw["query"].strip():
        raise UserError(f"{where}: field 'query' must be a non-empty string, not {raw.get('query')!r}.")
    kind = raw.get("type") or "unknown"
    if kind not in CONTRASTS:
        raise UserError(f"{where}: field 'type' is {kind!r}; one of {', '.join(CONTRASTS)}.")
    for path in raw["images"]:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UserError(
                f"{where}: the image path {path!r} leads out of the image folder; paths must be relative to it."
            )
    ids = {str(name): str(value) for name, value in (raw.get("ids") or {}).items()}
    return Record(
        raw["query"],
        tuple(raw["images"]),
        tuple(raw["responses"]),
        kind,
        raw.get("system") or None,
        raw.get("source") or "",
        ids,
    )


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file; UserError naming file and line at the first that is wrong."""
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                raw = parse_json(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number} is not JSON: {error}") from None
            found.append(make_record(raw, f"{path}, line {number}"))
    if not found:
        raise UserError(f"{path} holds no records.")
    return found


def write_records(path: Path, records: Iterable[Record]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            present = {name: value for name, value in asdict(record).items() if value}
            stream.write(json_text(present, ascii_only=False) + "\n")


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


_SOURCES = {
    "flickr30k": "the Flickr30k images, on request from the University of Illinois (Flickr30k Entities)",
    "Flickr30k-Counterfactuals": "CounterCurate's data set Flickr30k-Counterfactuals (Hugging Face: HanSolo9682)",
    "finecops-ref": "FineCops-Ref's release; its positive images are GQA's",
}


def drop_missing(
    records: list[Record], images: Path, max_missing: float, progress: Progress
) -> tuple[list[Record], Counter[str]]:
    """(records whose two images exist, missing images by top folder); UserError above the share ``max_missing``."""
    if not images.is_dir():
        raise UserError(
            f"There is no image folder {images}: give the folder that the image paths are relative to (--images)."
        )
    missing: Counter[str] = Counter()
    kept = []
    for record in progress(records, "looking for images"):
        absent = [path for path in record.images if not (images / path).is_file()]
        missing.update(PurePosixPath(path).parts[0] for path in absent)
        if not absent:
            kept.append(record)
    lost = len(records) - len(kept)
    if lost > max_missing * len(records) or not kept:
        raise UserError(
            f"{lost} of {len(records)} pairs lack an image under {images}. {missing_lines(missing)} Fetch them, or allow "
            f"a share of pairs to be left out with --max-missing {lost / len(records):.2f}."
        )
    return kept, missing


def missing_lines(missing: Counter[str]) -> str:
    """Missing images by folder, with a word on where each folder's images come from."""
    lines = []
    for folder, count in sorted(missing.items()):
        source = f" ({_SOURCES[folder]})" if folder in _SOURCES else ""
        lines.append(f"{count} missing under {folder}/{source}.")
    return " ".join(lines)

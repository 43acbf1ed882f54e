"""Records: one JSON object a line, svco's own simple format, and what every importer produces.

    {"query": …, "images": [path, path], "responses": [text, text], "type": …, "system": …, "source": …, "ids": {…}}

``images[s]`` is the picture of which ``responses[s]`` is true, relative to the image folder. ``query``, ``images`` and
``responses`` are required; ``type`` is one of ``pairs.CONTRASTS``. ``kind`` and ``facts`` are as in ``pair.json``, whose schema a
record's text has to pass (:mod:`svco.data.schema`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...basics.errors import BadSample, UserError, allowing
from ...basics.files import replacing
from ...basics.progress import Progress
from ...basics.strict_json import json_lines, json_text, parse_json
from ...data.schema import NO_CONTRAST, checked, shortened


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
    kind: str | None = None
    """A finer contrast type of the source's own."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Ground truth the source knows of the images."""


def make_record(raw: Any, where: str) -> Record:
    """Checks one JSON object; ``where`` (file and line) goes into the message. UserError for a mistake, BadSample for a record
    that is well written and no contrast."""
    try:
        fields = checked(raw, where, contrast="type", more=("images",))
        first, second = _paths(raw.get("images"), where)
    except BadSample as error:
        if error.reason in NO_CONTRAST:
            raise
        raise UserError(f"{error}.") from None
    return Record(images=(first, second), type=fields.pop("contrast"), **fields)


def _paths(images: Any, where: str) -> list[str]:
    if not (isinstance(images, list) and len(images) == 2 and all(isinstance(p, str) and p.strip() for p in images)):
        raise UserError(f"{where}: field 'images' must be two non-empty strings, not {shortened(images)}.")
    for path in images:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
            raise UserError(
                f"{where}: the image path {path!r} leads out of the image folder; paths must be relative to it."
            )
    if PurePosixPath(images[0]) == PurePosixPath(images[1]):
        raise BadSample("same-images", f"{where}: both images are {images[0]!r}, which is no contrast")
    return images


def read_records(path: Path, left_out: list[BadSample]) -> list[Record]:
    """The records of a JSONL file; UserError naming file and line at the first that is wrong. Those that are no contrast go into
    ``left_out``."""
    text, found = read_text(path), []
    if text.lstrip().startswith("["):
        raise UserError(
            f"{path} holds a JSON list; records are JSON lines, one object a line. If it is the S-VCO authors' release, its "
            "format is "
            "mvc-json; of a list of records, jq -c '.[]' makes lines."
        )
    for number, line in json_lines(text):
        try:
            raw = parse_json(line)
        except ValueError as error:
            several = (
                " (an object that runs over several lines? jq -c . makes one of it)" if line.strip() == "{" else ""
            )
            raise UserError(f"{path}, line {number} is not JSON: {error}{several}") from None
        try:
            found.append(make_record(raw, f"{path}, line {number}"))
        except BadSample as error:
            left_out.append(error)
    if not found:
        why = f": all {len(left_out)} of it are no contrast, the first: {left_out[0]}" if left_out else ""
        raise UserError(f"{path} holds no records{why}.")
    return found


def write_records(path: Path, records: Iterable[Record]) -> None:
    """One line of JSON each, into ``path`` in one move: what fails half-way leaves nothing there."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            present = {name: value for name, value in asdict(record).items() if value}
            stream.write(json_text(present, ascii_only=False) + "\n")


def read_text(path: Path) -> str:
    """The text of ``path``, line ends as they are; a byte-order mark is none of it."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


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
        allow = (
            f", or allow a share of pairs to be left out with --max-missing {allowing(lost, len(records))}"
            if kept
            else ""
        )
        raise UserError(
            f"{lost} of {len(records)} pairs lack an image under {images}. {missing_lines(missing)} Fetch them{allow}."
        )
    return kept, missing


def missing_lines(missing: Counter[str]) -> str:
    """Missing images by folder, with a word on where each folder's images come from."""
    lines = []
    for folder, count in sorted(missing.items()):
        source = f" ({_SOURCES[folder]})" if folder in _SOURCES else ""
        lines.append(f"{count} missing under {folder}/{source}.")
    return " ".join(lines)

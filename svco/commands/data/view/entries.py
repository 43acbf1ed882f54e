"""What is looked at: records, those that a rewriting rejected, or the pairs of shards, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ....basics.errors import BadSample, UserError
from ....data.pairs import Pair
from ....data.shards import ShardSet
from ....data.tables import file_lines
from ..choices import name_of
from ..images import Roots
from ..records import Record, make_record

Images = tuple[Callable[[], bytes], Callable[[], bytes]]


@dataclass(frozen=True)
class Entry:
    """One pair of the gallery."""

    name: str
    """By which it is chosen, or the sample's key in its shard."""
    images: Images
    """What reads each image file's bytes; OSError where it is not there."""
    texts: tuple[str, str]
    """The answers; the captions where there are none yet."""
    query: str = ""
    """The question; empty where there is none yet."""
    type: str = "unknown"
    """Contrast type."""
    kind: str = ""
    """The source's own finer type."""
    source: str = ""
    """Data set."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What was measured of it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else there is to read: captions, instruction, licence, ids."""
    reasons: tuple[str, ...] = ()
    """Why it was rejected."""


def entries_of_records(path: Path, roots: Roots) -> Iterator[Entry]:
    """The records of a file, or what a rewriting rejected of them."""
    for number, raw in file_lines(path):
        where = f"{path}, line {number}"
        reasons: Sequence[str] = ()
        if isinstance(raw, dict) and "record" in raw:
            reasons, raw = raw.get("reasons", ()), raw["record"]
        try:
            record = make_record(raw, where)
        except BadSample as error:  # no contrast: svco data build leaves it out
            yield _unreadable(f"line {number}", error)
            continue
        first, second = ((roots / image).read_bytes for image in record.images)
        yield _of_record(record, (first, second), tuple(map(str, reasons)))


def _of_record(record: Record, images: Images, reasons: tuple[str, ...]) -> Entry:
    captions = record.captions or ("", "")
    facts = {
        "captions": "  |  ".join(captions) if record.written and record.captions else "",
        "instruction": record.instruction or "",
        "licence": record.licence,
        "images": "  |  ".join(record.images),
    }
    return Entry(
        name=name_of(record),
        images=images,
        texts=record.responses if record.written else captions,
        query=record.query,
        type=record.type,
        kind=record.kind or "",
        source=record.source,
        scores=record.scores,
        facts={name: value for name, value in facts.items() if value},
        reasons=reasons,
    )


def entries_of_shards(shards: ShardSet) -> Iterator[Entry]:
    """The pairs of shards; one that cannot be read is an entry that says so."""
    for number in range(len(shards)):
        try:
            yield _of_pair(shards.read(number))
        except BadSample as error:
            yield _unreadable(f"sample {number}", error)


def _of_pair(pair: Pair) -> Entry:
    text = pair.text
    provenance = text.facts.get("provenance", {})
    first, second = (partial(bytes, image) for image in pair.images)
    facts = {"licence": provenance.get("licence", ""), "ids": "  ".join(f"{k} {v}" for k, v in text.ids.items())}
    return Entry(
        name=text.key,
        images=(first, second),
        texts=text.responses,
        query=text.query,
        type=text.contrast,
        kind=text.kind or "",
        source=text.source,
        scores=provenance.get("scores", {}),
        facts={name: value for name, value in facts.items() if value},
    )


def _unreadable(name: str, error: BadSample) -> Entry:
    unread = partial(_raise, OSError("it is not shown"))
    return Entry(name, (unread, unread), ("", ""), reasons=(f"{error.reason}: {error}",))


def _raise(error: Exception) -> bytes:
    raise error


def opened(inputs: Sequence[str], folders: Sequence[Path]) -> tuple[Iterator[Entry], bool]:
    """(the entries of ``inputs``, a file of records or shards; whether choices about them can be excluded from a build)."""
    files = [name for name in inputs if name.endswith(".jsonl")]
    if not files:
        return entries_of_shards(ShardSet.open(list(inputs))), False
    if len(inputs) > 1:
        raise UserError("Give one file of records (.jsonl), or shards.")
    if not folders:
        raise UserError("Give the folder that the records' image paths are relative to: --images FOLDER.")
    return entries_of_records(Path(files[0]), Roots(folders)), True

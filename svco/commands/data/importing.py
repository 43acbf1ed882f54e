"""A release to a file of records, one at a time, with a count of what was left out and of what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ... import __version__
from ...basics.errors import UserError, allowing
from ...basics.progress import Progress
from .images import folder_of, missing_lines
from .records import Record, write_records
from .sources.raw import Raw


@dataclass
class Imported:
    """What an import counted."""

    records: int = 0
    """Pairs of the source, with or without their images."""
    kept: int = 0
    """Pairs written."""
    types: Counter[str] = field(default_factory=Counter)
    """Contrast type -> pairs written."""
    unwritten: int = 0
    """Pairs written that have no question yet."""
    missing: Counter[str] = field(default_factory=Counter)
    """Folder -> images that are not there."""


def import_records(raw: Raw, target: Path, max_missing: float, progress: Progress) -> Imported:
    """Writes the pairs of ``raw`` whose images exist into ``target``, as they come: memory does not grow with them.

    UserError for what is wrong with the release, and if more than the share ``max_missing`` of the pairs lack an image; then
    ``target`` is as it was.
    """
    done = Imported()

    how = {"source": raw.source.name, "svco": __version__, "release": raw.path.name}
    # Of a file its name: where it lies is nobody else's matter, and would make other bytes of the same release.
    how |= {
        name: Path(value).name if Path(value).is_absolute() else value for name, value in raw.options.items() if value
    }

    def kept() -> Iterator[Record]:
        for record in progress(raw.source.read(raw), f"importing {raw.source.name}"):
            done.records += 1
            absent = {path for path in record.images if path not in raw.roots}
            if raw.stands_for[0] in absent:
                absent = absent - {raw.stands_for[0]} | {raw.stands_for[1]}
            done.missing.update(folder_of(path, raw.source.origins) for path in absent)
            if not absent:
                done.kept += 1
                done.types[record.type] += 1
                done.unwritten += not record.written
                yield replace(record, stages={"import": how, **record.stages})
        _refuse_too_few(raw, done, max_missing)

    write_records(target, kept())
    return done


def _refuse_too_few(raw: Raw, done: Imported, max_missing: float) -> None:
    if not done.records:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in raw.left_out.most_common())
        raise UserError(f"{raw.path} holds no pair that {raw.source.name} could import ({reasons or 'it is empty'}).")
    lost = done.records - done.kept
    if lost > max_missing * done.records or not done.kept:
        share = allowing(lost, done.records)
        allow = f", or allow a share of pairs to be left out with --max-missing {share}" if done.kept else ""
        raise UserError(
            f"{lost} of {done.records} pairs lack an image under {', '.join(map(str, raw.roots.folders))}. "
            f"{missing_lines(done.missing, raw.source.origins)} Fetch them{allow}."
        )

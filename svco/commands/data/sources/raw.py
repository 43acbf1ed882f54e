"""What an importer is given, and what it may do: find images, make some, leave records out by a reason that is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ....basics.errors import BadSample, UserError
from ....basics.files import replacing, writing
from ....data.pictures import picture_format
from ..images import Roots
from ..records import NOT_STATED, Record, leads_out, make_record


@dataclass(frozen=True)
class Option:
    """An option that one source has."""

    default: Any
    """Where it is not given; its type is the option's."""
    help: str
    """What it does."""
    choices: tuple[str, ...] | None = None
    """What it may be; None: anything."""


@dataclass
class Raw:
    """A release on disk, on its way to records."""

    source: Source
    """Which one."""
    path: Path
    """The file or folder given."""
    roots: Roots
    """Where its images are."""
    made: Path
    """Folder of the images that an importer makes or unpacks; one of the roots once there are any."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The source's own options."""
    licence: str = ""
    """What the user says that the samples' licence is; empty: what the source states."""
    name: str = ""
    """What the user calls the source; empty: its own name."""
    stands_for: tuple[str, str] = ("", "")
    """(an image that could not be made, the one that it lacks): of the record that comes next."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> records that are no pairs by the source's own rules."""
    notes: list[str] = field(default_factory=list)
    """What else is to be said."""

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] += 1

    def record(self, where: str, **fields: Any) -> Iterator[Record]:
        """A record of this source, checked, or none where it is no contrast, which is counted; empty fields count as absent.
        UserError that names ``where``."""
        given = {name: value for name, value in fields.items() if value}
        given["images"] = fields["images"]
        given.setdefault("source", self.name or self.source.name)
        given["licence"] = self.licence or given.get("licence") or self.source.licence
        try:
            yield make_record(given, where)
        except BadSample as error:
            self.no_contrast(error)

    def no_contrast(self, error: BadSample) -> None:
        """Counts a pair that is none, and names the first of them."""
        self.leave_out(f"{error.reason}: no contrast")
        if self.left_out[f"{error.reason}: no contrast"] <= 20:
            self.notes.append(f"left out ({error.reason}): {error}")

    def make(self, name: str, write: Callable[[Path], None]) -> str:
        """Has ``write`` make the image ``name``; its path. UserError where it cannot be written."""
        target = self.made / name
        if leads_out(name):
            raise UserError(f"{self.path}: the image {name!r} would be written outside of {self.made}.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                write(temporary)
        except OSError as error:
            raise UserError(f"The image {target} cannot be written: {error.strerror or error}.") from None
        if self.made not in self.roots.folders:
            self.roots = Roots([*self.roots.folders, self.made])
        return name

    def image(self, value: Any, name: str, where: str) -> str:
        """The path of an image as tables hold them: a path, or ``{"bytes": …, "path": …}``, whose bytes are unpacked into
        ``name`` with the ending of their format. UserError that names ``where``."""
        if isinstance(value, Mapping):
            data, path = value.get("bytes"), value.get("path")
            if data:

                def write(file: Path) -> None:
                    with writing(file):
                        file.write_bytes(data)

                return self.make(f"{name}.{_ending(data)}", write)
            value = path
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: an image is a path or bytes with a path, not {value!r:.80}.")
        return str(PurePosixPath(value))


@dataclass(frozen=True)
class Source:
    """A data set that can be imported."""

    name: str
    """On the command line and in the records."""
    does: str
    """One line for --help: what it is."""
    takes: str
    """What the file or folder is."""
    read: Callable[[Raw], Iterator[Record]]
    """Its records, one at a time."""
    licence: str = NOT_STATED
    """As stated by whoever publishes it."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Folder of images -> where they come from."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Options of its own, by their names in Python."""


def rest(item: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """What ``item`` holds besides ``used``."""
    return {name: value for name, value in item.items() if name not in used and value is not None}


def need(item: Any, names: tuple[str, ...], where: str, what: str) -> None:
    """UserError unless ``item`` is an object with all of ``names``."""
    if not isinstance(item, dict):
        raise UserError(f"{where} is not an object; {what} has {', '.join(names)}.")
    if absent := [name for name in names if item.get(name) is None]:
        raise UserError(f"{where} lacks {', '.join(absent)}; {what} has {', '.join(names)}.")


def safe(name: Any) -> str:
    """``name`` as a part of a file name."""
    return re.sub(r"[^\w.-]+", "_", str(name)).lstrip(".") or "_"


def _ending(data: bytes) -> str:
    """The usual ending of an image file's format, told by its first bytes; ``img`` for what is none."""
    form = picture_format(data).lower() or "img"
    return {"jpeg": "jpg", "mpo": "jpg"}.get(form, form)

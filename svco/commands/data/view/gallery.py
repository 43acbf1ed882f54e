"""A gallery of pairs: a folder with one page, small pictures, and the pairs' texts in pieces that the page loads.

It needs no server. A page that was opened from a disk may not read the files beside it, but it may include scripts: so the texts
are scripts. The page draws only the pairs near what is seen; its pictures are loaded when they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ....basics.errors import BadSample, UserError, first_line
from ....basics.files import write_whole, writing
from ....basics.html import render
from ....basics.parallel import in_parallel
from ....basics.progress import Progress
from ....basics.strict_json import json_text
from ....data.pictures import picture_size, read_picture
from ..words import pieces
from .entries import Entry

INDEX = "index.html"
_PIECE = 500
"""Pairs in one of the page's scripts."""
_SMALL = 128
"""Pixels: pictures no larger are shown with their pixels sharp."""


@dataclass
class Shown:
    """What is in a gallery."""

    pairs: int = 0
    """Pairs."""
    unreadable: int = 0
    """Pictures that cannot be shown."""
    facets: dict[str, Counter[str]] = field(default_factory=dict)
    """Property -> value -> pairs."""
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Score -> its least and greatest value."""

    def add(self, row: dict[str, Any]) -> None:
        """Counts one pair in."""
        self.pairs += 1
        self.unreadable += sum(image["src"] is None for image in row["images"])
        reasons = sorted({reason.partition(":")[0] for reason in row["reasons"]})
        for name, values in (("type", [row["type"]]), ("source", [row["source"]]), ("reason", reasons)):
            self.facets.setdefault(name, Counter()).update(values)
        for name, value in row["scores"].items():
            least, most = self.scores.get(name, (value, value))
            self.scores[name] = (min(least, value), max(most, value))


def write_gallery(
    entries: Iterable[Entry], target: Path, title: str, size: int, choosable: bool, progress: Progress
) -> Shown:
    """Writes the gallery of ``entries`` into the folder ``target``, pictures at most ``size`` pixels wide and high; over a
    gallery that is there, whose pictures are used again. UserError for a folder that holds something else."""
    if target.exists() and any(target.iterdir()) and not (target / "pairs").is_dir():
        raise UserError(f"{target} holds something that is no gallery; give another folder.")
    (target / "pairs").mkdir(parents=True, exist_ok=True)
    (target / INDEX).unlink(missing_ok=True)
    shown = Shown()
    rows = in_parallel(partial(_row, target=target, size=size), entries, os.cpu_count() or 1)
    scripts: list[str] = []
    counted = _counted(progress(rows, "drawing"), shown)
    while piece := list(islice(counted, _PIECE)):
        scripts.append(f"pairs/{len(scripts):05d}.js")
        write_whole(target / scripts[-1], f"show({_script(piece)});\n")
    for left_over in set((target / "pairs").iterdir()) - {target / script for script in scripts}:
        left_over.unlink()
    page = render(
        Path(__file__).with_name("page.html.j2"),
        title=title,
        shown=shown,
        facets={name: sorted(counts.items()) for name, counts in shown.facets.items() if set(counts) - {""}},
        scripts=scripts,
        choosable=choosable,
    )
    write_whole(target / INDEX, page)
    return shown


def _counted(rows: Iterable[dict[str, Any]], shown: Shown) -> Iterator[dict[str, Any]]:
    for row in rows:
        shown.add(row)
        yield row


def _script(rows: list[dict[str, Any]]) -> str:
    return ",\n".join(json_text(row, ascii_only=False, compact=True) for row in rows)


def _row(entry: Entry, target: Path, size: int) -> dict[str, Any]:
    """What the page is told of a pair. Answers are lists of [text, whether it differs]."""
    return {
        "name": entry.name,
        "type": entry.type,
        "kind": entry.kind,
        "source": entry.source,
        "query": entry.query,
        "answers": [[[piece.text, piece.differs] for piece in side] for side in pieces(*entry.texts)],
        "images": [_picture(read, target, size) for read in entry.images],
        "scores": {name: round(value, 4) for name, value in entry.scores.items()},
        "facts": dict(entry.facts),
        "reasons": list(entry.reasons),
    }


def _picture(read: Callable[[], bytes], target: Path, size: int) -> dict[str, Any]:
    """A small copy under a name of its content; ``src`` is None, and ``why`` says why, where there is no picture."""
    try:
        data = read()
        digest = hashlib.sha256(data).hexdigest()[:24]
        file = target / "images" / digest[:2] / f"{digest}-{size}.jpg"
        if not file.exists():
            _draw(data, file, size)
    except (OSError, BadSample) as error:
        return {"src": None, "why": first_line(error)}
    width, height = picture_size(data)
    small = max(width, height) <= _SMALL
    return {"src": str(file.relative_to(target)), "size": f"{width} × {height}", "small": small}


def _draw(data: bytes, file: Path, size: int) -> None:
    """BadSample where ``data`` is no picture."""
    picture = read_picture(data, "the picture")
    if picture.plain != "jpg" or max(picture.size) > size:
        picture.image.thumbnail((size, size))
        stream = io.BytesIO()
        picture.image.save(stream, "JPEG", quality=85, subsampling=0)
        data = stream.getvalue()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another thread may be at the same picture.
    temporary = file.with_name(f".{file.name}.{threading.get_ident()}")
    with writing(file):
        temporary.write_bytes(data)
        temporary.replace(file)

"""The first pass of a build: what each picture is known by, found once, kept as it is found, in little memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.errors import BadSample
from ...basics.files import file_mark, writing
from ...basics.parallel import in_parallel
from ...basics.progress import Progress
from ...basics.strict_json import json_text, parse_json
from ...data.looks import Look, look_of
from ...data.pictures import BLANK, Picture, picture_file, read_picture
from .images import Roots

FORM = 1
"""Another number when a picture would be known by something else than before."""
_ROW = np.dtype(
    [
        ("known", "?"),
        ("blank", "?"),
        ("plain", "u1"),
        ("resized", "?"),
        ("size", "<u4", 2),
        ("pixels", "S16"),
        ("bytes", "S32"),
        ("look", "<u8", 4),
    ]
)
_PLAIN = ("", "jpg", "png")


@dataclass(frozen=True)
class Known:
    """What an image file is known by, as it is stored: after ``--size``."""

    pixels: str
    """``Picture.digest``: equal for one picture in whatever file."""
    bytes: str
    """The SHA-256 of the file, in hex."""
    plain: str
    """``Picture.plain``; empty of one that is resized."""
    size: tuple[int, int]
    """(width, height), upright."""
    look: Look
    """``look_of``."""
    resized: bool = False
    """Whether it was larger than ``--size``."""


def stored_picture(picture: Picture, size: int | None) -> Picture:
    """``picture``, its longer side reduced to ``size`` pixels where it has more; never enlarged."""
    if size is None or max(picture.size) <= size:
        return picture
    from PIL import Image as Images

    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return Picture(picture.image.resize((width, height), Images.Resampling.LANCZOS))


def know(data: bytes, where: str, size: int | None) -> Known:
    """What the picture in a file's bytes is known by; BadSample."""
    read = read_picture(data, where)
    picture = stored_picture(read, size)
    digest = hashlib.sha256(data).hexdigest()
    return Known(picture.digest, digest, picture.plain, picture.size, look_of(picture.image), picture is not read)


class Pictures:
    """Paths of pictures, numbered as they come, and what each is known by. Some 250 bytes a picture."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rows = np.zeros(0, _ROW)
        self.problems: dict[int, str] = {}
        """Number -> what is the matter with a picture that cannot be read."""

    def number(self, path: str) -> int:
        return self._numbers.setdefault(path, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> Known:
        row = self._rows[number]
        pixels = (BLANK if row["blank"] else "") + bytes(row["pixels"]).ljust(16, b"\0").hex()
        size: Any = tuple(int(side) for side in row["size"])
        look: Any = tuple(int(part) for part in row["look"])
        digest = bytes(row["bytes"]).ljust(32, b"\0").hex()
        return Known(pixels, digest, _PLAIN[row["plain"]], size, look, bool(row["resized"]))

    @property
    def looks(self) -> np.ndarray:
        """(n, 4) uint64; ``UNKNOWN`` of those that are flat or cannot be read."""
        return self._rows["look"]

    @property
    def resized(self) -> int:
        return int(self._rows["resized"].sum())

    def same(self) -> np.ndarray:
        """(n,) the lowest number of a picture of the same pixels."""
        _, lowest, which = np.unique(self._rows["pixels"], return_index=True, return_inverse=True)
        return lowest[which.reshape(-1)]

    @property
    def blank(self) -> np.ndarray:
        """(n,) whether it has one colour."""
        return self._rows["blank"]

    def read(self, images: Roots, size: int | None, workers: int, kept: Path, progress: Progress) -> int:
        """Finds what all are known by, ``workers`` at once, and writes it into the file ``kept`` as it is found; what stands
        there already of a file that has not changed is believed. The number of those."""
        self._rows = np.zeros(len(self), _ROW)
        before = 0
        for number, found in self._kept(kept, images, size):
            if not self._rows[number]["known"]:
                before += 1
            self._put(number, found)
        paths = [path for path, number in self._numbers.items() if not self._rows[number]["known"]]

        def find(path: str) -> tuple[str, list[int | str], Known | BadSample]:
            file = images / path
            mark = _mark(file)  # of before it is read: what changes meanwhile is read again
            try:
                return path, mark, know(picture_file(file), str(file), size)
            except BadSample as error:
                return path, mark, error

        with writing(kept), kept.open("ab", buffering=0) as stream:
            for path, mark, found in progress(in_parallel(find, paths, workers), "reading images", len(paths)):
                number = self._numbers[path]
                if isinstance(found, BadSample):
                    self.problems[number] = str(found)
                    continue
                self._put(number, found)
                line = [
                    FORM,
                    path,
                    mark,
                    size,
                    found.pixels,
                    found.bytes,
                    found.plain,
                    found.size,
                    found.look,
                    found.resized,
                ]
                stream.write(json_text(line, compact=True).encode() + b"\n")
        return before

    def _put(self, number: int, found: Known) -> None:
        pixels = bytes.fromhex(found.pixels.removeprefix(BLANK))
        blank = found.pixels.startswith(BLANK)
        plain = _PLAIN.index(found.plain)
        self._rows[number] = (
            True,
            blank,
            plain,
            found.resized,
            found.size,
            pixels,
            bytes.fromhex(found.bytes),
            found.look,
        )

    def _kept(self, kept: Path, images: Roots, size: int | None) -> Iterator[tuple[int, Known]]:
        """What ``kept`` says of these pictures' files as they are now. Its last line may be cut: it is taken off."""
        for line in whole_lines(kept):
            with suppress(ValueError, TypeError, KeyError, OverflowError):
                form, path, mark, of, pixels, digest, plain, (width, height), look, resized = parse_json(line)
                number = self._numbers[path]
                if (form, of) == (FORM, size) and mark == _mark(images / path):
                    found = Known(pixels, digest, plain, (width, height), tuple(look), resized)
                    self._checked(found)
                    yield number, found

    @staticmethod
    def _checked(found: Known) -> None:
        """ValueError for what no picture is known by."""
        if len(found.pixels.removeprefix(BLANK)) != 32 or len(found.bytes) != 64 or len(found.look) != 4:
            raise ValueError
        if found.plain not in _PLAIN or not all(0 <= part < 1 << 64 for part in found.look):
            raise ValueError


def whole_lines(path: Path) -> Iterable[bytes]:
    """The lines of a file that grows by lines; one that a kill cut short is taken off it."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    end = 0
    with stream:
        for line in stream:
            if not line.endswith(b"\n"):
                with writing(path):
                    os.truncate(path, end)
                return
            end += len(line)
            yield line


def _mark(file: Path) -> list[int | str]:
    """What is cheap to know of a file; nothing of one that is not there."""
    try:
        return file_mark(file)
    except OSError:
        return []

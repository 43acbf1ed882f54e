"""Where the images of records are: below one or several folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...basics.errors import UserError


class Roots:
    """Image folders; a relative path is looked up in each, in their order. UserError for a folder that is not there."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = tuple(folders)
        for folder in folders:
            if not folder.is_dir():
                raise UserError(
                    f"There is no image folder {folder}: give the folder that the image paths are relative to (--images)."
                )

    def __contains__(self, path: str) -> bool:
        """Whether a folder holds a file of this relative path. Of plain strings: importers ask it for every picture."""
        return any(os.path.isfile(f"{folder}/{path}") for folder in self.folders)

    def find(self, path: str) -> Path | None:
        """The file of this relative path, or None."""
        return next((file for folder in self.folders if (file := folder / path).is_file()), None)

    def __truediv__(self, path: str) -> Path:
        """The file of this relative path, or where it would be in the first folder."""
        return self.find(path) or self.folders[0] / path


def folder_of(path: str, known: Iterable[str]) -> str:
    """The folder under which a missing image is counted: the longest of ``known`` that it is in, else its topmost one."""
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    named = [folder for folder in known if folder in parents]
    return max(named, key=len, default=parents[-2] if len(parents) > 1 else ".")


def missing_lines(missing: Counter[str], origins: Mapping[str, str]) -> str:
    """Missing images by folder, with a word on where each folder's images come from."""
    lines = []
    for folder, count in sorted(missing.items()):
        origin = f" ({origins[folder]})" if folder in origins else ""
        lines.append(f"{count} missing under {folder}/{origin}.")
    return " ".join(lines)

"""What a build has done so far: a folder beside its target, with which the same command goes on however it ended.

It holds what the pictures are known by (``pictures.jsonl``), and every shard that is whole with what it was made of. Each is used
where it still fits, whatever was asked for then: pictures by the files' sizes and times, shards by a digest of all that makes
their bytes. So a build that goes on ends with the bytes of one that was never stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ...basics.errors import UserError
from ...basics.files import file_digest, remove_leftovers, write_whole
from ...basics.strict_json import json_text, parse_json
from ...data.remote import is_remote
from ...data.shard_index import index_places
from ...record.lock import FolderLock
from .target import MANIFEST


class Unfinished:
    """The folder, this process's alone until the ``with`` ends: removed when all went well, else kept, which is said. UserError
    where another process builds the same."""

    def __init__(self, target: str | Path):
        self.target = target
        self.remote = is_remote(str(target))
        if self.remote:
            from ...data.shards import DEFAULT_CACHE

            name = hashlib.sha256(str(target).encode()).hexdigest()[:16]
            self.folder = DEFAULT_CACHE.expanduser() / "unfinished" / name
        else:
            whole = Path(target).absolute()
            self.folder = whole.with_name(f"{whole.name}.unfinished")
        self.pictures = self.folder / "pictures.jsonl"
        self.records = self.folder / "records.jsonl"
        self._lock = FolderLock(self.folder)
        self.shards_used = 0
        """Shards of an earlier build that are used."""

    def __enter__(self) -> Unfinished:
        if not self.remote and not self.folder.exists() and any(Path(self.target).glob("*.tar")):
            raise UserError(f"{self.target} already holds shards; choose an empty folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            taken = self._lock.take()
        except OSError as error:
            raise UserError(f"Shards cannot be written into {self.target}: {error}.") from None
        if not taken:
            raise UserError(
                f"Another build writes {self.target} ({self.folder}). Wait for it, or choose another folder."
            )
        remove_leftovers(self.folder)
        if not self.remote:
            remove_leftovers(self.folder.parent, Path(self.target).name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.records.unlink(missing_ok=True)
        if kind is None or not (self.pictures.exists() and self.pictures.stat().st_size):
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"what is done is kept in {self.folder}; the same command goes on from there", file=sys.stderr)
        self._lock.release()

    def shard(self, name: str) -> Path:
        """Where the shard of this name is written."""
        return self.folder / name

    def has(self, name: str, recipe: str) -> bool:
        """Whether a whole shard of this name is there, made of what ``recipe`` is a digest of, every byte as it was."""
        path = self.shard(name)
        try:
            told = parse_json(self._mark(path).read_bytes())
            good = told == {"recipe": recipe, "sha256": file_digest(path)} and self._index(path).exists()
        except (OSError, ValueError):
            return False
        self.shards_used += good
        return good

    def keep(self, name: str, recipe: str) -> None:
        """The shard ``name`` is whole."""
        path = self.shard(name)
        write_whole(self._mark(path), json_text({"recipe": recipe, "sha256": file_digest(path)}))

    def clear_target(self, names: list[str], manifest: str) -> bool:
        """Takes from the target what an earlier try had moved there before it ended: files that are this build's. Whether all of
        it is there, manifest and all; then nothing is taken. Of others nothing is touched."""
        if self.remote:
            return False
        folder = Path(self.target)
        there = sorted(path.name for path in folder.glob("*.tar")) if folder.is_dir() else []
        written = folder / MANIFEST
        if not all(name in names and file_digest(folder / name) == file_digest(self.shard(name)) for name in there):
            return False
        if written.exists():
            return there == sorted(names) and written.read_text() == manifest
        for name in there:
            (folder / name).unlink()
        return False

    def hand_over(self, names: list[str], folder: Path) -> None:
        """Puts shards and indices into ``folder`` and keeps them here too: whatever happens there can happen again."""
        for name in names:
            for path in (self.shard(name), self._index(self.shard(name))):
                try:
                    os.link(path, folder / path.name)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(path, folder / path.name)

    @staticmethod
    def _index(shard: Path) -> Path:
        return index_places(shard, shard.parent)[0]

    @staticmethod
    def _mark(shard: Path) -> Path:
        return shard.with_name(f"{shard.name}.whole.json")

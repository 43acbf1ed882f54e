"""One atomic envelope for every checkpoint, whatever the engine puts in it.

    step-N.tmp/ written by all ranks, each fsyncs and digests its own files -> MANIFEST.json -> renamed to step-N/ -> `latest`

A folder without a valid MANIFEST was never finished. DeepSpeed's own commit is not atomic: it rewrites its ``latest``
in place before the last rank is done. Bytes are read by all ranks at once, when they are written and when they are checked
before a run goes on: one rank alone would take longer over a 34B model's than the others may wait in a collective.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import file_digest, write_whole, writing
from ..basics.progress import Progress, silent
from ..basics.sealed import sealed
from ..basics.secrets import redacted_tree
from .identity import Identity
from .manifest import MANIFEST, SEALED_SINCE, Position, Score, best_of, damage, finished, read_manifest, step_name


class Checkpoints:
    """The checkpoints of one run. Every method is a collective."""

    def __init__(self, folder: Path, keep: int, world: World, identity: Identity | None = None, keep_best: str = ""):
        """``identity``: what the run is, kept in each checkpoint that is saved; ``keep_best``: the metric whose best stays."""
        self.folder = folder
        self.keep = keep
        self.world = world
        self.identity = redacted_tree(dict(identity or {}))
        self.keep_best = keep_best

    def improves(self, score: Score | None) -> bool:
        """Whether ``score`` is better than those of all checkpoints that are there: of the history that the run goes on with."""

        def compare() -> bool:
            best = best_of(self.folder, self.keep_best)
            return score is not None and (best is None or score.worth > best[1].worth)

        return self.world.on_main(compare)

    def judge(self, step: int, score: Score | None) -> None:
        """Adds ``score`` to the checkpoint of ``step``, whose validation was made up for later."""

        def write() -> None:
            file = self.folder / step_name(step) / MANIFEST
            if score is not None and file.is_file():
                write_whole(file, sealed(read_manifest(file.parent) | {"score": asdict(score)}), durable=True)

        self.world.on_main(write)

    def save(self, position: Position, write: Callable[[Path], list[Path]], score: Score | None = None) -> Path:
        """Has every rank ``write`` into a temporary folder, then makes it ``step-N`` in one rename.

        ``write`` returns the files that this rank wrote; every file belongs to one rank. ``score``: of the step's validation.
        """
        final = self.folder / step_name(position.step)
        temporary = final.with_name(f"{final.name}.tmp")
        try:
            self._save(position, write, score, temporary, final)
        except UserError:
            if self.world.is_main:  # half a checkpoint helps nobody, least of all on a full disk
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        return final

    def _save(
        self, position: Position, write: Callable[[Path], list[Path]], score: Score | None, temporary: Path, final: Path
    ) -> None:
        began = time.monotonic()

        def begin() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            with writing(temporary):
                temporary.mkdir(parents=True)

        self.world.on_main(begin)
        if not all(self.world.gather(temporary.is_dir())):
            raise UserError(
                f"The run folder {self.folder} is not the same folder on all nodes. Put run.root on storage that all "
                "nodes share."
            )
        written = write(temporary)
        mine = self.world.on_each(lambda: {str(file.relative_to(temporary)): _digest(file) for file in written})
        files = dict(sorted(item for part in self.world.gather(mine) for item in part.items()))
        seconds = round(time.monotonic() - began, 3)
        manifest = {
            "version": SEALED_SINCE,
            "position": asdict(position),
            "identity": self.identity,
            "seconds": seconds,
            "files": files,
        }
        if score is not None:
            manifest["score"] = asdict(score)

        def publish() -> None:
            write_whole(temporary / MANIFEST, sealed(manifest), durable=True)
            shutil.rmtree(final, ignore_errors=True)
            with writing(final):
                temporary.rename(final)
            write_whole(self.folder / "latest", final.name, durable=True)
            best = best_of(self.folder, self.keep_best)
            for old in finished(self.folder)[: -self.keep] if self.keep else []:
                if best is None or old != best[0]:
                    shutil.rmtree(old)

        self.world.on_main(publish)

    def newest(self, progress: Progress = silent) -> Path | None:
        """The newest valid checkpoint, or None. Damaged ones are passed over with a warning that says why."""
        for folder in self.world.broadcast(finished(self.folder)[::-1]):
            if (problem := self.damage(folder, progress)) is None:
                return folder
            if self.world.is_main:
                warnings.warn(f"passing over the checkpoint {folder}: {problem}", stacklevel=2)
        return None

    def set_aside(self, beyond: int) -> list[str]:
        """Renames the checkpoints of steps after ``beyond``, where the run goes on: they are of a history that is left, or
        damaged, and must not outrank what comes. The new names. A collective."""
        moved = []
        if self.world.is_main:
            for folder in finished(self.folder):
                if int(folder.name.partition("-")[2]) > beyond:
                    names = (f"{folder.name}.abandoned{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
                    aside = next(path for name in names if not (path := folder.with_name(name)).exists())
                    folder.rename(aside)
                    moved.append(aside.name)
            kept = finished(self.folder)
            if moved and kept:
                write_whole(self.folder / "latest", kept[-1].name, durable=True)
            elif moved:
                (self.folder / "latest").unlink(missing_ok=True)
        return self.world.broadcast(moved)

    def damage(self, folder: Path, progress: Progress = silent) -> str | None:
        """What is wrong with the checkpoint ``folder``, or None; the ranks share the reading."""
        found = self.world.gather(damage(folder, progress, self.world.rank, self.world.size))
        return next((problem for problem in found if problem), None)


def _digest(file: Path) -> dict[str, Any]:
    """{bytes, sha256} of ``file``, which is on disk afterwards. For its writer to call: elsewhere fsync would not reach it."""
    with writing(file), file.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": file.stat().st_size, "sha256": file_digest(file)}

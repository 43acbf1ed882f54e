"""One atomic envelope for every checkpoint, whatever the engine puts in it.

    step-N.tmp/ written by all ranks, each fsyncs and digests its own files -> MANIFEST.json -> renamed to step-N/ -> `latest`

A folder without a valid MANIFEST was never finished. DeepSpeed's own commit is not atomic: it rewrites its ``latest``
in place before the last rank is done. Bytes are read by all ranks at once, when they are written and when they are checked
before a run goes on: one rank alone would take longer over a 34B model's than the others may wait in a collective.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import file_digest, write_whole, writing
from ..basics.progress import Progress, silent
from ..basics.seal import sealed, unsealed
from .identity import Identity, differences

MANIFEST = "MANIFEST.json"
SEALED_SINCE = 2
"""Version of the MANIFEST since which it has a digest of itself."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: what must be equal for it to go on, and what it has counted so far."""

    step: int
    """Optimiser steps done."""
    epoch: int
    """Epoch of the last step."""
    pairs: int
    """Pairs consumed by training (not prefetched), bad ones included."""
    seed: int
    """``run.seed``."""
    global_batch: int
    """``optim.global_batch``."""
    steps: int
    """Steps of the whole run: the learning rate depends on it."""
    data: str
    """Digest of the training shards' index."""
    order: int
    """Version of the order of pairs."""
    tune: str
    """``model.tune``."""
    bad: dict[str, int]
    """Bad samples met so far, by reason."""

    def differences(self, now: Position) -> dict[str, tuple[Any, Any]]:
        """Fact -> (what it was, what it is ``now``) of each that a run must have in common with the one that wrote this."""
        named = {
            "run.seed": "seed",
            "optim.global_batch": "global_batch",
            "the number of steps": "steps",
            "the training shards (digest)": "data",
            "svco's order of pairs (version)": "order",
            "model.tune": "tune",
        }
        before, after = ({words: getattr(place, field) for words, field in named.items()} for place in (self, now))
        return differences(before, after)


@dataclass(frozen=True)
class Score:
    """What the validation of a checkpoint's step said of it."""

    metric: str
    """``checkpoint.keep_best``, as the recipe writes it."""
    value: float
    """A finite number."""
    higher_is_better: bool
    """Which way."""

    @property
    def worth(self) -> float:
        """Higher is better."""
        return self.value if self.higher_is_better else -self.value

    def __str__(self) -> str:
        return f"{self.metric.removeprefix('-')} {self.value:.4g}"


class Checkpoints:
    """The checkpoints of one run. Every method is a collective."""

    def __init__(self, folder: Path, keep: int, world: World, identity: Identity | None = None, keep_best: str = ""):
        """``identity``: what the run is, kept in each checkpoint that is saved; ``keep_best``: the metric whose best stays."""
        self.folder = folder
        self.keep = keep
        self.world = world
        self.identity = dict(identity or {})
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
                manifest = _manifest(file.parent) | {"score": asdict(score), "version": SEALED_SINCE}
                write_whole(file, sealed(manifest), durable=True)

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


def finished(folder: Path) -> list[Path]:
    """The finished checkpoints in ``folder``, oldest first."""
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name))


def step_name(step: int) -> str:
    """The name of the checkpoint of ``step``."""
    return f"step-{step:06d}"


def best_of(folder: Path, metric: str | None = None) -> tuple[Path, Score] | None:
    """The best checkpoint in ``folder`` by ``metric`` (None: the one that the newest checkpoint with a score has), of equal ones
    the first; None where none has a score. It is a matter of what is there: what a run went back behind does not count."""
    scored = []
    for checkpoint in finished(folder):
        try:
            found = _manifest(checkpoint).get("score")
            score = None if found is None else Score(**found)
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        if score is not None and damage(checkpoint, contents=False) is None:
            scored.append((checkpoint, score))
    if metric is None:
        metric = scored[-1][1].metric if scored else ""
    return max((item for item in scored if item[1].metric == metric), key=lambda item: item[1].worth, default=None)


def _digest(file: Path) -> dict[str, Any]:
    """{bytes, sha256} of ``file``, which is on disk afterwards. For its writer to call: elsewhere fsync would not reach it."""
    with writing(file), file.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": file.stat().st_size, "sha256": file_digest(file)}


def damage(
    folder: Path, progress: Progress = silent, rank: int = 0, size: int = 1, contents: bool = True
) -> str | None:
    """What is wrong with checkpoint ``folder``, or None if every byte is as it was written.

    Of ``size`` readers this is number ``rank``, which reads its share of the files. ``contents`` False: names and sizes only.
    """
    try:
        manifest = _manifest(folder)
        files = manifest["files"]
        Position(**manifest["position"])
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was never finished"
    except (ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    mine = sorted(files, key=lambda name: (-files[name]["bytes"], name))[rank::size]
    for name in progress(mine, f"checking {folder.name}"):
        expected, file = files[name], folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
        if contents and file_digest(file) != expected["sha256"]:
            return f"{name} has other contents than when it was written"
    return None


def save_seconds(folder: Path) -> float:
    """How long the save of checkpoint ``folder`` took; 0 for one that does not say."""
    return float(_manifest(folder).get("seconds", 0.0))


def read_identity(folder: Path) -> Identity | None:
    """What the run of checkpoint ``folder`` was; None in one of an earlier version."""
    return _manifest(folder).get("identity")


def read_position(folder: Path) -> Position:
    return Position(**_manifest(folder)["position"])


def _manifest(folder: Path) -> dict[str, Any]:
    """What the MANIFEST says; ValueError when it is not what was written."""
    return unsealed((folder / MANIFEST).read_text(encoding="utf-8"), since=SEALED_SINCE)

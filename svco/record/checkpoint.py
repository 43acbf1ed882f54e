"""One atomic envelope for every checkpoint, whatever the engine puts in it.

    step-N.tmp/ written by all ranks, each fsyncs and digests its own files -> MANIFEST.json -> renamed to step-N/ -> `latest`

A folder without a valid MANIFEST was never finished. DeepSpeed's own commit is not atomic: it rewrites its ``latest``
in place before the last rank is done. Bytes are read by all ranks at once, when they are written and when they are checked
before a run goes on: one rank alone would take longer over a 34B model's than the others may wait in a collective.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import file_digest, write_whole
from ..basics.progress import Progress, silent
from ..basics.secrets import redacted_tree
from ..basics.shipped import is_inside
from ..basics.strict_json import parse_json
from .identity import Identity, differences

MANIFEST = "MANIFEST.json"


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


class Checkpoints:
    """The checkpoints of one run. Every method is a collective."""

    def __init__(self, folder: Path, keep: int, world: World, identity: Identity | None = None):
        """``identity``: what the run is, kept in each checkpoint that is saved."""
        self.folder = folder
        self.keep = keep
        self.world = world
        self.identity = redacted_tree(dict(identity or {}))

    def save(self, position: Position, write: Callable[[Path], list[Path]]) -> Path:
        """Has every rank ``write`` into a temporary folder, then makes it ``step-N`` in one rename.

        ``write`` returns the files that this rank wrote; every file belongs to one rank.
        """
        began = time.monotonic()
        final = self.folder / f"step-{position.step:06d}"
        temporary = final.with_name(f"{final.name}.tmp")
        if self.world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.world.barrier()
        if not all(self.world.gather(temporary.is_dir())):
            raise UserError(
                f"The run folder {self.folder} is not the same folder on all nodes. Put run.root on storage that all "
                "nodes share."
            )
        mine = {str(file.relative_to(temporary)): _digest(file) for file in write(temporary)}
        files = dict(sorted(item for part in self.world.gather(mine) for item in part.items()))
        if self.world.is_main:
            seconds = round(time.monotonic() - began, 3)
            manifest = {
                "version": 1,
                "position": asdict(position),
                "identity": self.identity,
                "seconds": seconds,
                "files": files,
            }
            write_whole(temporary / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True), durable=True)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            write_whole(self.folder / "latest", final.name, durable=True)
            if self.keep:
                for old in finished(self.folder)[: -self.keep]:
                    shutil.rmtree(old)
        self.world.barrier()
        return final

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


def _digest(file: Path) -> dict[str, Any]:
    """{bytes, sha256} of ``file``, which is on disk afterwards. For its writer to call: elsewhere fsync would not reach it."""
    with file.open("rb") as stream:
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
        files = {name: (told["bytes"], told["sha256"]) for name, told in manifest["files"].items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    if outside := [name for name in files if not is_inside(name)]:
        return f"its {MANIFEST} names the file {outside[0]!r}, outside of the checkpoint"
    mine = sorted(files, key=lambda name: (-files[name][0], name))[rank::size]
    for name in progress(mine, f"checking {folder.name}"):
        (size_then, digest), file = files[name], folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size_then:
            return f"{name} has {file.stat().st_size} bytes instead of {size_then}"
        if contents and file_digest(file) != digest:
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
    """What the MANIFEST says, its parts of the types that they must have; ValueError when they are not."""
    found = parse_json((folder / MANIFEST).read_bytes())
    try:
        position = Position(**found["position"])
        kinds = {field.name: {"int": int, "str": str}.get(str(field.type), dict) for field in fields(Position)}
        right = all(type(getattr(position, name)) is kind for name, kind in kinds.items())
        right &= all(type(told["bytes"]) is int and type(told["sha256"]) is str for told in found["files"].values())
        right &= isinstance(found.get("identity"), (dict, type(None)))
        right &= type(found.get("seconds", 0.0)) in (int, float) and all(type(n) is int for n in position.bad.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks or has too much: {error}") from None
    if not right:
        raise ValueError("a part of it is of another type than svco writes")
    return found

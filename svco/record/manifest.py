"""What a checkpoint says of itself: where its run stands, what that run is, the digest of each file; what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..basics.files import file_digest
from ..basics.progress import Progress, silent
from ..basics.sealed import unsealed
from ..basics.shipped import is_inside
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
            found = read_manifest(checkpoint).get("score")
            score = None if found is None else Score(**found)
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        if score is not None and damage(checkpoint, contents=False) is None:
            scored.append((checkpoint, score))
    if metric is None:
        metric = scored[-1][1].metric if scored else ""
    return max((item for item in scored if item[1].metric == metric), key=lambda item: item[1].worth, default=None)


def damage(
    folder: Path, progress: Progress = silent, rank: int = 0, size: int = 1, contents: bool = True
) -> str | None:
    """What is wrong with checkpoint ``folder``, or None if every byte is as it was written.

    Of ``size`` readers this is number ``rank``, which reads its share of the files. ``contents`` False: names and sizes only.
    """
    try:
        manifest = read_manifest(folder)
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
    return float(read_manifest(folder).get("seconds", 0.0))


def read_identity(folder: Path) -> Identity | None:
    """What the run of checkpoint ``folder`` was; None in one of an earlier version."""
    return read_manifest(folder).get("identity")


def read_position(folder: Path) -> Position:
    return Position(**read_manifest(folder)["position"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the MANIFEST says, its parts of the types that they must have; ValueError when they are not."""
    found = unsealed((folder / MANIFEST).read_text(encoding="utf-8"), since=SEALED_SINCE)
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

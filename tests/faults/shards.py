"""Shards that change under a run: replaced, removed or slow in mid-epoch."""

from __future__ import annotations

import os
import random
import shutil
import time
from functools import partial
from pathlib import Path

from faults.processes import At, Injected
from faults.stage import Stage, must, told
from faults.table import Row

NAME = "train-000001.tar"


def rows(_: int) -> list[Row]:
    first_read = At(f"read .*/{NAME}$", 24)  # the first of the training proper
    again = "put back, it goes on: the same curve and weights"
    return [
        Row(
            "shard/removed",
            "a shard is removed",
            "in the first epoch",
            f"exit code 2, one sentence that names it; {again}",
            lambda stage: changed(stage, first_read, partial(move_away, str(stage.data / NAME)), "cannot be read here"),
        ),
        Row(
            "shard/replaced",
            "a shard is replaced by one of another size",
            "in the first epoch",
            f"exit code 2, one sentence that names it; {again}",
            lambda stage: changed(
                stage, first_read, partial(put, "heldout-000000.tar", str(stage.data / NAME)), "was replaced"
            ),
        ),
        Row(
            "shard/replaced/same-size",
            "a shard is replaced by one of the same size and time, whose pictures are others",
            "in the first epoch",
            f"exit code 2, one sentence that names it; {again}",
            lambda stage: changed(stage, first_read, partial(disturb, str(stage.data / NAME)), NAME),
            short=True,
        ),
        Row(
            "shard/slow",
            "a shard is slow: 0.1 s at each opening (an audit hook)",
            "in all of the run",
            "nothing is wrong: the same curve and weights, bit for bit",
            lambda stage: slow(stage),
        ),
        Row(
            "shard/slow/workers",
            "the same with two loader processes",
            "in all of the run",
            "nothing is wrong: the same curve and weights, bit for bit",
            lambda stage: slow(stage, "data.workers=2"),
        ),
        Row(
            "shard/control",
            "control: pictures that are others from the start",
            "before the run",
            "the check of the curve breaks",
            other_pictures,
            control=True,
        ),
    ]


def move_away(path: str) -> None:
    Path(path).rename(f"{path}.away")


def put(other: str, path: str) -> None:
    """Another shard in place of ``path``."""
    shutil.copy2(path, f"{path}.away")
    shutil.copy2(Path(path).with_name(other), f"{path}.new")
    os.replace(f"{path}.new", path)


def disturb(path: str) -> None:
    """The same names and sizes, other bytes in the middle of each member of some length."""
    shutil.copy2(path, f"{path}.away")
    data, draw, status = bytearray(Path(path).read_bytes()), random.Random(0), Path(path).stat()
    place = 0
    while (place := data.find(b"\xff\xd8\xff", place + 1)) > 0:
        data[place + 800 + draw.randrange(50)] ^= 0x15
    Path(f"{path}.new").write_bytes(bytes(data))
    os.utime(f"{path}.new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(f"{path}.new", path)


def changed(stage: Stage, at: At, act: partial, *words: str) -> None:
    ended = stage.train(inject=(Injected(at, act),))
    away = stage.data / f"{NAME}.away"
    must(away.exists(), "the fault was not delivered")
    os.replace(away, stage.data / NAME)
    told(ended, 2, NAME, *words)
    told(stage.train(), 0)
    stage.same_as("plain")


def slow(stage: Stage, *changes: str) -> None:
    began = time.monotonic()
    told(stage.train(*changes, inject=(Injected(At(f"read .*/{NAME}$", 0), partial(time.sleep, 0.1)),)), 0)
    must(time.monotonic() - began > 2, "the fault was not delivered")
    stage.same_as("plain")


def other_pictures(stage: Stage) -> None:
    disturb(str(stage.data / NAME))
    (stage.data / f"{NAME}.index.json").unlink()
    told(stage.train(), 0)
    stage.same_as("plain")

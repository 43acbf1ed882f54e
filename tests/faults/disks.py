"""A disk that is full at a write, and folders that may only be read."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

from faults.processes import At, Injected
from faults.stage import NotHere, Stage, must, told
from faults.table import Row

WRITES = {
    "lengths": ("open .*/cache/lengths/", "the measured lengths"),
    "lock": ("open .*/run/lock", "the lock, the first file of a run"),
    "recipe": ("open .*/run/.*recipe.yaml", "recipe.yaml"),
    "metrics": ("open .*/run/metrics.jsonl", "metrics.jsonl"),
    "reference": ("os.mkdir .*/references", "the cached reference"),
    "line": ("^doing training$", "the first line of metrics.jsonl"),
    "checkpoint": ("os.mkdir .*/step-000004.tmp", "the weights of a checkpoint"),
    "manifest": ("open .*/step-000004.tmp/.*MANIFEST.json", "the MANIFEST of a checkpoint"),
    "latest": ("open .*/checkpoints/.*latest", "`latest`"),
    "adapter": ("os.mkdir .*/run/.adapter", "the adapter"),
    "heldout": ("open .*/run/.*heldout.json", "heldout.json"),
    "pictures": ("open .*/run/.*samples.png", "samples.png"),
    "card": ("open .*/adapter/.*README.md", "the adapter's card"),
}
FULL = "No space left on device"


def rows(_: int) -> list[Row]:
    found = [
        Row(
            f"disk-full/{name}",
            "the disk (a small tmpfs) is full",
            f"from just before {words} is written",
            "exit code 2 and one sentence with the file's path; once there is space it goes on: the same curve and weights",
            partial(full, pattern=pattern),
            disk="32m",
            short=name == "checkpoint",
        )
        for name, (pattern, words) in WRITES.items()
    ]
    found += [
        Row(
            "disk-full/export",
            "the disk (a small tmpfs) is full",
            "from the first file of `svco export --format merged`",
            "exit code 2 and one sentence; nothing of the export is left, and again with space it is the same",
            full_export,
            disk="48m",
        ),
        Row(
            "read-only/run.root",
            "run.root may only be read (a bind mount)",
            "from the start",
            "exit code 2, one sentence that names it",
            read_only_root,
        ),
        Row(
            "read-only/checkpoints",
            "the folder of the checkpoints may only be read (a bind mount)",
            "from step 4 on",
            "exit code 2, one sentence that names it; mended it goes on: the same curve and weights",
            read_only_checkpoints,
        ),
        Row(
            "read-only/shards",
            "shards lie where one may only read (a bind mount), without indices",
            "from the start",
            "nothing is wrong: the indices go into the cache",
            read_only_shards,
        ),
        Row(
            "disk-full/control",
            "control: the same filling of the disk, removed at once",
            "just before the weights of a checkpoint are written",
            "the run is not disturbed, so that the check of the message breaks",
            lambda stage: full(stage, WRITES["checkpoint"][0], stays=False),
            control=True,
            disk="32m",
        ),
    ]
    return found


def fill(folder: str, stays: bool = True) -> None:
    """Takes all space of the disk of ``folder``."""
    filler = Path(folder) / "filler"
    with filler.open("wb") as stream:
        size, block = 0, 1 << 20
        while block >= 1024:
            try:
                os.posix_fallocate(stream.fileno(), size, block)
                size += block
            except OSError:
                block //= 2
    if not stays:
        filler.unlink()


def full(stage: Stage, pattern: str, stays: bool = True) -> None:
    ended = stage.train(inject=(Injected(At(pattern), partial(fill, str(stage.folder), stays)),))
    must(not stays or (stage.folder / "filler").exists(), "the fault was not delivered")
    (stage.folder / "filler").unlink(missing_ok=True)
    told(ended, 2, FULL, str(stage.folder))
    told(stage.train(), 0)
    stage.same_as("plain")


def full_export(stage: Stage) -> None:
    stage.adopt("plain")
    target = stage.folder / "out"
    arguments = ("export", stage.run(), "--format", "merged", "--to", target)
    act = Injected(At("os.mkdir .*/.out"), partial(fill, str(stage.folder)))
    ended = stage.svco(*arguments, inject=(act,))
    (stage.folder / "filler").unlink()
    told(ended, 2, FULL)
    must(not target.exists() and not list(stage.folder.glob(".out*")), "something of the export is left")
    told(stage.svco(*arguments), 0)
    must((target / "model.safetensors").exists(), "no export")


def may_only_be_read(stage: Stage, folder: Path) -> None:
    stage.mount("--bind", str(folder), at=folder)
    done = subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"mount: {done.stderr.strip()} (needs root)")


def read_only_root(stage: Stage) -> None:
    may_only_be_read(stage, stage.root)
    told(stage.train(), 2, "Read-only file system", str(stage.root))


def read_only_checkpoints(stage: Stage) -> None:
    stage.halfway()
    folder = stage.run() / "checkpoints"
    may_only_be_read(stage, folder)
    told(stage.train(), 2, "Read-only file system", str(folder))
    subprocess.run(["umount", str(folder)], check=True)
    stage.mounts.remove(folder)
    told(stage.train(), 0)
    stage.same_as("plain")


def read_only_shards(stage: Stage) -> None:
    for index in stage.data.glob("*.index.json"):
        index.unlink()
    may_only_be_read(stage, stage.data)
    told(stage.train(), 0)
    stage.same_as("plain")
    must(list((stage.cache / "indices").glob("*.index.json")), "no index in the cache")

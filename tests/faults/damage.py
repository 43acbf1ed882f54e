"""Bytes that are torn, cut off, flipped or gone, in every kind of file that a run or an export reads back."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.kills import make_fit
from faults.stage import Broken, Stage, contents, must, told
from faults.table import Row

GOES_ON = "goes on: the same curve and weights, bit for bit"
SENTENCE = "exit code 2 and one sentence that names the file"


@dataclass(frozen=True)
class File:
    """A kind of file that is read back."""

    name: str
    find: Callable[[Stage], Path]
    """Where it is on a stage that has :meth:`Stage.halfway`."""
    play: Callable[[Stage, Path, str, int], None]
    """(stage, file, way, place) -> reads it back, and looks."""
    holds: str
    ways: tuple[str, ...] = ("cut", "empty", "bit", "gone")
    short: tuple[str, ...] = ()


def cut(data: bytes, _: random.Random) -> bytes:
    return data[: len(data) // 2]


def empty(_: bytes, __: random.Random) -> bytes:
    return b""


def bit(data: bytes, draw: random.Random) -> bytes:
    """One bit of one byte."""
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def digit(data: bytes, draw: random.Random) -> bytes:
    """One digit for another: still what a parser takes."""
    places = [m.start() for m in re.finditer(rb"(?<![\w.-])[1-9]\d*", data)]
    place = draw.choice(places)
    other = draw.choice([d for d in b"123456789" if d != data[place]])
    return data[:place] + bytes([other]) + data[place + 1 :]


def torn(data: bytes, draw: random.Random) -> bytes:
    """A block of a disk that was never written."""
    place = draw.randrange(0, len(data))
    return data[:place] + b"\0" * len(data[place : place + 512]) + data[place + 512 :]


WAYS = {
    "cut": ("cut in half", cut),
    "empty": ("of no bytes", empty),
    "bit": ("with one bit flipped", bit),
    "torn": ("with 512 bytes of zeros", torn),
    "digit": ("with one digit changed", digit),
    "gone": ("removed", None),
}


def spoil(file: Path, way: str, seed: int) -> None:
    """Damages ``file``."""
    change = WAYS[way][1]
    if change is None:
        file.unlink()
        return
    before = file.read_bytes()
    draw = random.Random(f"{seed} {file.name} {way}")
    after = change(before, draw)
    while after == before:
        after = change(before, draw)
    file.write_bytes(after)


def newest(name: str) -> Callable[[Stage], Path]:
    return lambda stage: stage.run() / "checkpoints" / "step-000004" / name


def in_run(name: str) -> Callable[[Stage], Path]:
    return lambda stage: stage.run() / name


def passed_over(stage: Stage, file: Path, way: str, seed: int) -> None:
    spoil(file, way, seed)
    told(ended := stage.train(), 0, "passing over the checkpoint")
    must("step-000002" not in ended.text.split("passing over")[1][:60], "it passed over the sound one")
    stage.same_as("plain")


def goes_on(stage: Stage, file: Path, way: str, seed: int) -> None:
    spoil(file, way, seed)
    told(stage.train(), 0)
    stage.same_as("plain")


def reference(stage: Stage, file: Path, way: str, seed: int) -> None:
    """One that is gone is made again, one that is damaged is refused by name, and made again once it is deleted."""
    spoil(file, way, seed)
    if way != "gone":
        told(stage.train(), 2, "The cached reference", file.name, "Delete it; it is made again")
        file.unlink()
    told(stage.train(), 0)
    stage.same_as("plain")


def shard(stage: Stage, file: Path, way: str, seed: int) -> None:
    """A shard that is not what the run was trained on so far: nothing goes on, and the folder is as it was."""
    before = contents(stage.run())
    words = {"gone": "cannot be read", "cut": "cut short", "empty": "cut short"}.get(
        way, "the training shards (digest) was"
    )
    if way == "gone":
        words = "No shards match"
    spoil(file, way, seed)
    told(stage.train(), 2, words)
    must(contents(stage.run()) == before, "a refused start changed the run's folder")
    shutil.copy2(stage.world.data / file.name, file)
    told(stage.train(), 0)
    stage.same_as("plain")


def rotten_shard(stage: Stage, file: Path, way: str, seed: int) -> None:
    """Size and time of change are what they were."""
    status, data = file.stat(), bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        picture = next(member for member in tar if member.name.endswith(".jpg"))
    data[picture.offset_data + picture.size // 2 + seed % 20] ^= 4
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    told(stage.train(), 2, file.name, "has other contents than when it was indexed", "the training shards (digest) was")


def base(stage: Stage, file: Path, way: str, seed: int) -> None:
    """The base of a run that goes on is what it was, or is refused, and nothing is written."""
    spoil(file, way, seed)
    before = contents(stage.run())
    told(stage.train(f"model.base={stage.base}"), 2)
    must(contents(stage.run()) == before, "a refused start changed the run's folder")


def export_of(what: str) -> Callable[[Stage, Path, str, int], None]:
    def play(stage: Stage, file: Path, way: str, seed: int) -> None:
        """Refused, or the same export as of the sound one; never another."""
        target, sound = stage.folder / "out", stage.folder / "sound"
        told(stage.svco("export", stage.run(), "--to", sound, *what.split()), 0)
        spoil(file, way, seed)
        ended = stage.svco("export", stage.run(), "--to", target, *what.split())
        if ended.code == 0:
            mine, theirs = (
                {name: digest for name, digest in contents(folder).items() if name.endswith((".safetensors", ".json"))}
                for folder in (target, sound)
            )
            must(mine == theirs, "another export, exit code 0")
            stage.notes.append("not read: the same export")
        else:
            told(ended, 2)
            must(not target.exists(), "a refused export left something")

    return play


def adapter_export(stage: Stage, file: Path, way: str, seed: int) -> None:
    """An export that merges a damaged adapter is none."""
    spoil(file, way, seed)
    target = stage.folder / "out"
    told(stage.svco("export", file.parent.parent, "--format", "merged", "--to", target), 2)
    must(not target.exists(), "a refused export left something")


def warm_start(stage: Stage, file: Path, way: str, seed: int) -> None:
    """A run that begins with a damaged adapter does not begin."""
    spoil(file, way, seed)
    told(stage.train(f"lora.init_from={file.parent}", name="warm"), 2, str(file.parent))
    must(not (stage.run("warm") / "metrics.jsonl").exists(), "it began")


def status(stage: Stage, file: Path, way: str, seed: int) -> None:
    spoil(file, way, seed)
    ended = stage.svco("status", stage.run())
    must(
        ended.code in (1, 2, 75, 3) and "Traceback" not in ended.said, f"svco status: {ended.code} {ended.text[-300:]}"
    )
    told(stage.train(), 0)
    stage.same_as("plain")


def metrics(stage: Stage, file: Path, way: str, seed: int) -> None:
    """Lines that cannot be read are left out, and said; training does not depend on them."""
    spoil(file, way, seed)
    unreadable = file.exists() and not all(map(is_json, file.read_bytes().splitlines()))
    told(ended := stage.train(), 0)
    try:
        stage.same_as("plain")
    except Broken:
        missing = ("cannot be read and are left out", "lacks what was logged")
        if way in ("cut", "empty", "gone") or unreadable:  # a number for a number is seen by nobody
            must(any(words in ended.text for words in missing), "lines are missing and nothing is said")
        weights = [stage.world.finished("plain").run(), stage.run()]
        weights = [(run / "adapter" / "adapter_model.safetensors").read_bytes() for run in weights]
        must(weights[0] == weights[1], "other weights")
        stage.notes.append("the log lacks what was destroyed, weights are the same")


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def index_beside(stage: Stage) -> Path:
    return stage.data / "train-000001.tar.index.json"


def first(pattern: str) -> Callable[[Stage], Path]:
    """The largest file of the stage that matches: the training pairs' own."""
    return lambda stage: max(stage.folder.glob(pattern), key=lambda file: file.stat().st_size)


ALL = ("cut", "empty", "bit", "torn", "gone")
TEXT = ("cut", "empty", "bit", "digit", "torn", "gone")
FILES = [
    File(
        "checkpoint/trainable.safetensors",
        newest("trainable.safetensors"),
        passed_over,
        "passed over with the reason; the older one " + GOES_ON,
        ALL,
        ("bit",),
    ),
    File(
        "checkpoint/MANIFEST.json",
        newest("MANIFEST.json"),
        passed_over,
        "passed over with the reason; the older one " + GOES_ON,
        TEXT,
        ("digit",),
    ),
    File(
        "checkpoint/latest",
        in_run("checkpoints/latest"),
        goes_on,
        "written anew; " + GOES_ON,
        ("cut", "empty", "bit", "gone"),
    ),
    File("state.json", in_run("state.json"), status, "`svco status` says so without a traceback; " + GOES_ON, TEXT),
    File(
        "metrics.jsonl",
        in_run("metrics.jsonl"),
        metrics,
        "lines that are lost are told (a digit for another is seen by nobody); the weights are the same",
        TEXT,
    ),
    File("recipe.yaml/resumed", in_run("recipe.yaml"), goes_on, "written anew; " + GOES_ON, ("cut", "empty", "gone")),
    File(
        "reference",
        first("runs/references/*.safetensors"),
        reference,
        "refused by name, made again once deleted; " + GOES_ON,
        ALL,
        ("bit",),
    ),
    File("cache/lengths", first("cache/lengths/*.npz"), goes_on, "measured again; " + GOES_ON, ALL),
    File("cache/digests", lambda stage: stage.cache / "digests.json", goes_on, "read again; " + GOES_ON, TEXT),
    File("shard/index", index_beside, goes_on, "made again; " + GOES_ON, TEXT, ("digit",)),
    File(
        "shard/tar",
        lambda stage: stage.data / "train-000000.tar",
        shard,
        "refused, with what is wrong, before anything is written; put back: " + GOES_ON,
        ALL,
    ),
    File(
        "shard/tar/rotten",
        lambda stage: stage.data / "train-000000.tar",
        rotten_shard,
        "refused with its name, though size and time of change are what the index says",
        ("bit",),
        ("bit",),
    ),
    File(
        "base",
        lambda stage: stage.base / "model.safetensors",
        base,
        "refused before anything is written",
        ALL,
    ),
    File(
        "adapter/weights/warm-start",
        lambda stage: stage.adopt("plain", "old") / "adapter" / "adapter_model.safetensors",
        warm_start,
        "refused",
        ALL,
    ),
    File(
        "adapter/weights/exported",
        lambda stage: stage.adopt("plain", "old") / "adapter" / "adapter_model.safetensors",
        adapter_export,
        "exit code 2, and no export",
        ALL,
    ),
    File(
        "adapter/config/warm-start",
        lambda stage: stage.adopt("plain", "old") / "adapter" / "adapter_config.json",
        warm_start,
        "refused",
        ("cut", "empty", "gone"),
    ),
    File(
        "recipe.yaml/exported",
        in_run("recipe.yaml"),
        export_of("--checkpoint step-4"),
        "the export of a checkpoint is refused, or the same",
        ("cut", "empty", "bit", "digit", "gone"),
    ),
    File(
        "checkpoint/exported",
        newest("trainable.safetensors"),
        export_of("--checkpoint step-4"),
        SENTENCE,
        ALL,
    ),
]


def rows(seed: int) -> list[Row]:
    found = []
    for file in FILES:
        for way in file.ways:
            found.append(
                Row(
                    f"bytes/{file.name}/{way}",
                    f"{file.name.split('/exported')[0].split('/warm')[0]} {WAYS[way][0]}",
                    "before it is read back",
                    file.holds,
                    lambda stage, file=file, way=way: damaged(stage, file, way, seed),
                    short=way in file.short,
                )
            )
    found.append(
        Row(
            "bytes/control/checkpoint",
            "control: a bit of a weight in a checkpoint flipped, with digests made to fit",
            "before it is read back",
            "the check of the curve breaks",
            control,
            control=True,
            short=True,
        )
    )
    return found


def damaged(stage: Stage, file: File, way: str, seed: int) -> None:
    stage.halfway()
    file.play(stage, file.find(stage), way, seed)


def control(stage: Stage) -> None:
    """Nothing but the digests stands between a flipped bit and another curve."""
    checkpoint = stage.halfway() / "checkpoints" / "step-000004"
    file = checkpoint / "trainable.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x10  # an exponent's bit of the last weight
    file.write_bytes(bytes(data))
    make_fit(checkpoint)
    told(stage.train(), 0)
    stage.same_as("plain")

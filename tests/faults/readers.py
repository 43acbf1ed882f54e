"""Every byte of every small file that is read back, damaged in turn: the readers themselves, in this process.

A row of ``damage`` flips one drawn bit and starts a run; here each byte is flipped once and the file is cut at each length, and
its reader must say so as it documents, or give back what was written.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.stage import Stage, must
from faults.table import Row


def rows(_: int) -> list[Row]:
    kinds = {
        "MANIFEST.json": (manifest, "called damaged, or it says what was written"),
        "index": (index, "not believed, or it says what was written"),
        "lengths": (lengths, "an error that makes them be measured again, or they are what was written"),
        "digests": (digests, "read again, or it says what was written"),
        "reference": (reference, "refused, or it is what was written"),
        "state.json": (state, "no traceback"),
        "metrics.jsonl": (metrics, "no traceback; whole lines are kept"),
    }
    return [
        Row(
            f"bytes/every/{name}",
            f"{name} with each of its bytes flipped in turn, and cut at each of its lengths",
            "before it is read back (by its reader, in one process)",
            holds,
            partial(every, reader=reader),
            short=name in ("MANIFEST.json", "index", "state.json", "metrics.jsonl"),
        )
        for name, (reader, holds) in kinds.items()
    ]


def every(stage: Stage, reader: Callable[[Stage], tuple[Path, Callable[[], object]]]) -> None:
    """``reader`` gives the file, and a function that reads it: what was written, or None where it is not believed."""
    stage.halfway()
    file, read = reader(stage)
    whole, sound = file.read_bytes(), read()
    must(sound is not None, "the sound file is not believed")
    step = max(1, len(whole) // 400)
    believed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(0, len(whole), step):
            flipped = whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
            for how, data in (("flipped", flipped), ("cut", whole[:place])):
                file.write_bytes(data)
                try:
                    found = read()
                except Exception as error:
                    raise AssertionError(f"byte {place} {how}: {error!r}") from error
                must(found is None or found == sound, f"byte {place} {how}: it is believed, and says something else")
                believed += found is not None
    file.write_bytes(whole)
    stage.notes.append(f"{len(range(0, len(whole), step))} bytes each way; {believed} made no difference")


def manifest(stage: Stage):
    from svco.record.manifest import MANIFEST, damage, read_identity, read_position

    folder = stage.run() / "checkpoints" / "step-000004"
    return folder / MANIFEST, lambda: None if damage(folder) else (read_position(folder), read_identity(folder))


def index(stage: Stage):
    from svco.data import shard_index

    tar = stage.data / "train-000000.tar"
    file = shard_index.index_places(tar, stage.cache)[0]

    def read():
        try:
            return shard_index._read(file, tar)
        except ValueError:
            return None

    return file, read


def lengths(stage: Stage):
    from svco.batches.lengths import Lengths

    file = max(stage.cache.glob("lengths/*.npz"), key=lambda path: path.stat().st_size)

    def read():
        try:
            return [array.tolist() for array in vars(Lengths.load(file)).values()]
        except (OSError, ValueError):
            return None

    return file, read


def digests(stage: Stage):
    from places import BASE

    from svco.model.provenance import weights_digest

    file = stage.cache / "digests.json"
    before = file.read_bytes()

    def read():
        found = weights_digest(str(BASE), file)
        file.write_bytes(before) if not file.exists() else None
        return found

    read()
    return file, read


def reference(stage: Stage):
    import json

    from safetensors import safe_open

    from svco.basics.errors import UserError
    from svco.run.cached_reference import ReferenceCache

    file = max(stage.root.glob("references/*.safetensors"), key=lambda path: path.stat().st_size)
    with safe_open(file, "np") as stored:
        facts, shape = json.loads(stored.metadata()["facts"]), stored.get_tensor("logps").shape

    def read():
        try:
            cache = ReferenceCache.open(file.parent, facts, shape[0], shape[2])
        except UserError:
            return None
        return cache.logps.tolist(), cache.done.tolist()

    return file, read


def state(stage: Stage):
    from svco.basics.errors import UserError
    from svco.record.status import look

    def read():
        with contextlib.suppress(UserError):
            look(stage.run())
        return True

    return stage.run() / "state.json", read


def metrics(stage: Stage):
    from svco.record.board import keep_up_to, last_line

    file = stage.run() / "metrics.jsonl"
    count = len(file.read_text().splitlines())

    def read():
        last_line(file)
        return keep_up_to(file, 4) <= count

    return file, read

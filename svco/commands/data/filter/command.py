"""A filter from its command line to its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....basics.dist import World
from ....basics.errors import UserError
from ....basics.files import file_digest, replacing
from ....basics.progress import Progress, shown
from ....record.lock import FolderLock
from ..images import Roots
from ..records import Record, as_line, stream_records
from .embed import embed
from .encoders import Encoder
from .figures import draw_borderline, draw_scores
from .report import facts, page
from .store import Store
from .tally import CLASSES, Tally
from .thresholds import Thresholds

KEPT_FILE, REJECTED_FILE, RESULT = "records.jsonl", "rejected.jsonl", "filter.json"


@dataclass(frozen=True)
class Wanted:
    """What is to be filtered, and how."""

    records: Path
    """File of records."""
    images: Roots
    """Where their images are."""
    out: Path
    """Folder of the results; it must not hold any."""
    cache: Path
    """Folder of the vectors, for this run and later ones."""
    encoders: dict[str, str]
    """Score -> folder or hub id."""
    thresholds: Thresholds
    """What is kept."""
    dtype: str = "float32"
    """Of the encoders."""
    batch: int = 32
    """Pictures at a time."""
    workers: int = 2
    """Threads a rank that read and decode them."""
    max_unreadable: float = 0.0
    """Share of pairs that may be left out because an image cannot be read."""


def run(wanted: Wanted, world: World) -> dict[str, Any]:
    """Filters and writes; what filter.json holds. A collective: every rank encodes its share of the pictures."""
    with ExitStack() as stack:
        stack.enter_context(_joined(world))
        world.on_main(lambda: _prepare(wanted, stack))
        show = shown(world.is_main)
        began = time.monotonic()
        encoders = {score: Encoder(name, world.device, wanted.dtype) for score, name in wanted.encoders.items()}
        store = Store(wanted.cache, world.rank, world.size)
        stack.callback(store.finish)
        encoded = embed(wanted.records, wanted.images, encoders, store, world, wanted.batch, wanted.workers, show)
        result = {
            "version": 1,
            "records": {"file": str(wanted.records), "sha256": world.on_main(lambda: file_digest(wanted.records))},
            "encoders": {
                score: {"name": encoder.name, "digest": encoder.digest} for score, encoder in encoders.items()
            },
            "encoded": encoded,
            "seconds": {"encoding": round(time.monotonic() - began, 3)},
            "ranks": world.size,
        }
        return world.on_main(lambda: _finish(wanted, store, result, show))


@contextmanager
def _joined(world: World) -> Iterator[None]:
    """This rank in a process group with the others: NCCL where each has a GPU, else gloo."""
    if world.size == 1:
        yield
        return
    import torch

    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    torch.distributed.init_process_group(
        "nccl" if world.device.type == "cuda" else "gloo", rank=world.rank, world_size=world.size
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _prepare(wanted: Wanted, stack: ExitStack) -> None:
    """Makes room, and takes the vectors for this run until ``stack`` ends."""
    if wanted.out.exists() and any(wanted.out.iterdir()):
        raise UserError(
            f"{wanted.out} already holds files; choose an empty folder. The vectors in {wanted.cache} are used again."
        )
    try:
        wanted.cache.mkdir(parents=True, exist_ok=True)
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(wanted.cache)
        taken = lock.take()
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}.") from None
    if not taken:
        raise UserError(f"Another filter writes into {wanted.cache}. Wait for it, or give another --cache.")
    stack.callback(lock.release)


def _finish(wanted: Wanted, store: Store, result: dict[str, Any], show: Progress) -> dict[str, Any]:
    """Scores every pair and writes the folder, whole or not at all."""
    began = time.monotonic()
    tally = Tally(wanted.thresholds)
    with store.named(), replacing(wanted.out) as folder:
        folder.mkdir()
        with (
            (folder / KEPT_FILE).open("w", encoding="utf-8") as kept,
            (folder / REJECTED_FILE).open("w", encoding="utf-8") as rejected,
        ):
            for record in show(stream_records(wanted.records), "scoring pairs"):
                judged, good = _judge(record, wanted, store, result["encoders"], tally)
                (kept if good else rejected).write(as_line(judged))
        _refuse_too_few(wanted, tally)
        draw_scores(tally, wanted.encoders, folder / "scores.png")
        if pairs := tally.borderline():
            draw_borderline(pairs, wanted.images, folder / "borderline.png")
        result |= facts(tally)
        result["seconds"]["scoring"] = round(time.monotonic() - began, 3)
        (folder / RESULT).write_text(json.dumps(result, indent=1, allow_nan=False))
        (folder / "README.md").write_text(page(tally, result))
    return result


def _judge(
    record: Record, wanted: Wanted, store: Store, encoders: dict[str, dict[str, str]], tally: Tally
) -> tuple[Record, bool]:
    """(``record`` with its scores and what the filter did, whether it is kept)."""
    found = [store.path(path) for path in record.images]
    pictures = [picture for picture, _ in found]
    problem = next(filter(None, (why or store.problem(picture) for picture, why in found)), "")
    stage: dict[str, Any] = {score: f"{told['name']} {told['digest'][:16]}" for score, told in encoders.items()}
    if problem:
        tally.fail(problem)
        return replace(record, stages={**record.stages, "filter": {**stage, "verdict": problem}}), False
    scores = {}
    for score, told in encoders.items():
        first, second = (store.vector(told["digest"], picture) for picture in pictures)
        scores[score] = round(float(first @ second), 6)
    mirrored = store.look(pictures[0]).mirrors(store.look(pictures[1]))
    verdict = wanted.thresholds.verdict(record.type, record.kind, scores, mirrored)
    own = wanted.thresholds[record.type]
    stage |= {"clip_above": own.clip_above, "dino_below": own.dino_below, "verdict": verdict}
    judged = replace(record, scores={**record.scores, **scores}, stages={**record.stages, "filter": stage})
    tally.add(judged, scores, verdict)
    return judged, CLASSES[verdict] != "left out"


def _refuse_too_few(wanted: Wanted, tally: Tally) -> None:
    total = tally.scored + tally.unread
    if tally.unread > wanted.max_unreadable * total or not tally.scored:
        raise UserError(
            f"{tally.unread} of {total} pairs have an image that cannot be read; the first: {tally.unreadable[0]}. Mend or "
            "remove them, or allow a share to be left out with --max-unreadable."
        )

"""Every distinct picture of the records once through the encoders, divided among the ranks by its content."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ....basics.dist import World
from ....basics.errors import BadSample, UserError
from ....basics.progress import Progress
from ....data.pictures import decode_image, picture_file
from ..images import Roots
from ..records import stream_records
from .encoders import Encoder
from .store import THUMB, Look, Store

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


def embed(
    records: Path,
    images: Roots,
    encoders: Mapping[str, Encoder],
    store: Store,
    world: World,
    batch: int,
    workers: int,
    progress: Progress,
) -> int:
    """Puts the vectors of all pictures into ``store`` and returns how many were computed, on all ranks together. A collective.

    What an earlier run has put there is not computed again. UserError for a vector that is not finite, with the picture's path.
    """
    _together(world, store, lambda: _read_files(records, images, store, world, progress))
    store.open()
    done = _together(world, store, lambda: _encode(images, encoders, store, world, batch, workers, progress))
    store.open()
    return sum(world.gather(done))


def _together(world: World, store: Store, work: Callable[[], T]) -> T:
    """``work`` on every rank; a UserError of one, the store's included, is raised on all."""

    def named() -> T:
        with store.named():
            return work()

    return world.on_each(named)


def _read_files(records: Path, images: Roots, store: Store, world: World, progress: Progress) -> None:
    """This rank's share of the paths, each read once: what it holds."""
    for record in progress(stream_records(records), "reading images"):
        for path in record.images:
            if zlib.crc32(path.encode()) % world.size != world.rank or store.has_path(path):
                continue
            try:
                store.add_path(path, hashlib.sha256(picture_file(images / path)).hexdigest(), "")
            except BadSample as error:
                store.add_path(path, "", str(error))
    store.commit()


def _encode(
    images: Roots,
    encoders: Mapping[str, Encoder],
    store: Store,
    world: World,
    batch: int,
    workers: int,
    progress: Progress,
) -> int:
    """This rank's share of the pictures; how many."""
    digests = [encoder.digest for encoder in encoders.values()]
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for group in progress(
            _ahead(_mine(store, digests, world), batch, pool, images), f"encoding batches of {batch} images"
        ):
            good = [item for item in group if not isinstance(item[2], BadSample)]
            for picture, _, problem in group:
                if isinstance(problem, BadSample):
                    store.fail(picture, str(problem))
            if good:
                pictures, paths, opened = zip(*good)
                vectors = {encoder.digest: encoder(opened) for encoder in encoders.values()}
                for encoder in encoders.values():
                    _refuse_odd(encoder, vectors[encoder.digest], paths)
                store.add(vectors, pictures, [_look(image) for image in opened])
                done += len(good)
    store.commit()
    return done


def _mine(store: Store, digests: Sequence[str], world: World) -> Iterator[tuple[str, str]]:
    """(picture, a path of it) of this rank's share that has no vectors yet, each once."""
    for picture, path in store.distinct(world.rank, world.size):
        if not store.has(digests, picture):
            yield picture, path


def _ahead(
    pictures: Iterator[tuple[str, str]], batch: int, pool: ThreadPoolExecutor, images: Roots
) -> Iterator[list[tuple[str, str, Image | BadSample]]]:
    """Batches of (picture, path, what it shows), one decoded while the one before is encoded."""

    def opened(item: tuple[str, str]) -> tuple[str, str, Image | BadSample]:
        picture, path = item
        try:
            return picture, path, decode_image(picture_file(images / path), path)
        except BadSample as error:
            return picture, path, error

    waiting = [pool.submit(opened, item) for item in islice(pictures, batch)]
    while waiting:
        coming = [pool.submit(opened, item) for item in islice(pictures, batch)]
        yield [future.result() for future in waiting]
        waiting = coming


def _refuse_odd(encoder: Encoder, vectors: np.ndarray, paths: Sequence[str]) -> None:
    odd = ~np.isfinite(vectors).all(1)
    if odd.any():
        raise UserError(
            f"{encoder.name} gives {odd.sum()} of {len(paths)} pictures numbers that are not finite, the first "
            f"{paths[odd.argmax()]}. Its weights may be damaged, or --dtype float16 too narrow for it: try --dtype float32."
        )


def _look(image: Image) -> Look:
    from PIL import Image as Images

    small = image.convert("L").resize((THUMB, THUMB), Images.Resampling.BILINEAR)  # BOX is not symmetric
    return Look(image.size, np.asarray(small, np.uint8))

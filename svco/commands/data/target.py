"""The folder that shards are written into, here or in a store: whole or as it was."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...basics.errors import UserError
from ...basics.files import beside, remove_leftovers
from ...basics.progress import Progress, silent
from ...basics.shipped import typed
from ...data.remote import MANIFEST as MANIFEST
from ...data.remote import Source, is_remote
from ...data.remote_write import ShardStore

_LARGEST = 2**26
"""Bytes of a manifest that are read."""


def destination(text: str) -> Path | str:
    """A folder as it is typed on a command line: a path, or a URL as it is. UserError for one that no shards can come into."""
    if not is_remote(text):
        return typed(text)
    ShardStore.refuse(text)
    return text


def check(target: Path | str) -> None:
    """UserError if ``target`` is a URL and holds shards or cannot be written: to be told before hours of work, not after."""
    if isinstance(target, str) and is_remote(target):
        ShardStore.at(target).check()


def manifest_of(folder: str) -> bytes | None:
    """The MANIFEST.json in ``folder``, a path or URL; None without one. OSError or UserError if it cannot be read."""
    if is_remote(folder):
        return Source.at(f"{folder}/{MANIFEST}").read(_LARGEST)
    file = Path(folder, MANIFEST)
    return file.read_bytes() if file.exists() else None


@contextmanager
def filling(target: Path | str, progress: Progress = silent) -> Iterator[Path]:
    """A folder beside ``target`` for shards, their indices and the manifest, which are moved there when the block ends and are
    gone if it fails: what is half done never stands in the way of another try. UserError if ``target`` holds shards.

    Where ``target`` is a URL the folder is one in ``~/.cache/svco``, and what it holds is uploaded
    (:mod:`svco.data.remote_write`); UserError before the block if nothing can be written there."""
    if isinstance(target, str) and is_remote(target):
        with _filling_store(ShardStore.at(target), progress) as partial:
            yield partial
        return
    target = Path(target)
    _refuse_full(target)
    target = target.absolute()
    partial = beside(target)
    try:
        partial.mkdir(parents=True)
        yield partial
        _refuse_full(target)  # another may have filled it meanwhile
        target.mkdir(exist_ok=True)
        # The manifest last: where it is, all that it names is there.
        for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(target / path.name)
    except OSError as error:
        raise UserError(f"Shards cannot be written into {target}: {error}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _filling_store(store: ShardStore, progress: Progress) -> Iterator[Path]:
    from ...data.shards import DEFAULT_CACHE

    store.begin()
    place, name = DEFAULT_CACHE.expanduser() / "uploads", hashlib.sha256(store.folder.url.encode()).hexdigest()[:16]
    partial = beside(place / f"{name}-{uuid.uuid4().hex[:8]}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place, f"{name}-*")
        partial.mkdir()
        yield partial
        store.fill(partial, progress)
    except BaseException as error:
        store.leave()
        if isinstance(error, OSError):
            raise UserError(
                f"Shards are made in {place} before they are uploaded, and that fails: {error}. HOME says where."
            ) from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_full(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.glob("*.tar"))):
        raise UserError(f"{target} already holds shards; choose an empty folder.")

"""The folder that shards are written into: whole or as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...basics.errors import UserError
from ...basics.files import beside

MANIFEST = "MANIFEST.json"


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for shards, their indices and the manifest, which are moved there when the block ends and are
    gone if it fails: what is half done never stands in the way of another try. UserError if ``target`` holds shards."""
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


def _refuse_full(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.glob("*.tar"))):
        raise UserError(f"{target} already holds shards; choose an empty folder.")

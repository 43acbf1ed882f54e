"""Files that numbers come from, with a digest of what they hold: what is read is what was written, or an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import first_line
from .files import replacing, write_whole

if TYPE_CHECKING:
    import numpy as np


def write_sealed(path: Path, tree: Any) -> None:
    """Replaces the file ``path`` by ``tree`` as JSON, with a digest of it."""
    write_whole(path, json.dumps({"sha256": _digest(json.dumps(tree).encode()), "holds": tree}))


def read_sealed(path: Path) -> Any:
    """What :func:`write_sealed` wrote; OSError if the file cannot be opened, ValueError if it is something else or damaged."""
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict) or found.get("sha256") != _digest(json.dumps(found.get("holds")).encode()):
        raise ValueError("it is not what was written")
    return found["holds"]


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An ``.npz`` of ``arrays`` with a digest of them, replaced in one move."""
    import numpy as np

    stored: Any = {**arrays, "sha256": np.array(arrays_digest(arrays))}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **stored)


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """The arrays of these names in an ``.npz``; OSError if it cannot be opened, ValueError if it is damaged or lacks one. Nothing
    is unpickled. A file of an earlier version has no digest beyond zip's own."""
    import numpy as np

    # Opened here: numpy does not close a damaged file that it opened itself.
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in names}
                digest = str(stored["sha256"]) if "sha256" in stored.files else None
        except Exception as error:  # a damaged zip makes numpy raise any of a dozen
            raise ValueError(first_line(error)) from None
    if digest not in (None, arrays_digest(arrays)):
        raise ValueError("it is not what was written")
    return list(arrays.values())


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, their names, shapes and dtypes, in hex."""
    names = sorted(arrays)
    facts = [(name, arrays[name].dtype.str, arrays[name].shape) for name in names]
    return _digest(json.dumps(facts).encode(), *(arrays[name].tobytes() for name in names))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

"""Files that numbers come from, with a digest of what they hold: what is read is what was written, or an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import first_line
from .files import replacing
from .strict_json import json_text, parse_json

if TYPE_CHECKING:
    import numpy as np


_DIGEST = "digest"


def sealed(record: Mapping[str, Any], compact: bool = False) -> str:
    """``record`` as JSON, with a digest of itself. ``compact``: in one line."""
    whole = {**record, _DIGEST: _record_digest(record)}
    return json_text(whole, indent=None if compact else 1, sort_keys=True, compact=compact)


def unsealed(text: str, since: int = 0) -> dict[str, Any]:
    """The record that ``sealed`` wrote; ValueError when it is no longer that.

    ``since``: a record whose ``version`` is lower is of before there were digests, and is believed without.
    """
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    written = record.pop(_DIGEST, None)
    if written is None and record.get("version") in range(1, since):
        return record
    if written != _record_digest(record):
        raise ValueError("it says something else than when it was written")
    return record


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
    return _digest(json_text(facts).encode(), *(arrays[name].tobytes() for name in names))


def _record_digest(record: Mapping[str, Any]) -> str:
    return _digest(json_text(record, sort_keys=True).encode())


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

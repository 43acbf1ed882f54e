"""Records that are believed only as long as they say what was written: JSON with a digest of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from .strict_json import json_text, parse_json

_DIGEST = "digest"


def sealed(record: Mapping[str, Any], compact: bool = False) -> str:
    """``record`` as JSON, with a digest of itself; ``compact``: in one line."""
    whole = {**record, _DIGEST: _digest(record)}
    return json_text(whole, compact=True) if compact else json_text(whole, indent=1, sort_keys=True)


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
    if written != _digest(record):
        raise ValueError("it says something else than when it was written")
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(record, sort_keys=True).encode()).hexdigest()

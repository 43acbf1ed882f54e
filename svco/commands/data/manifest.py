"""What a MANIFEST.json says of the shards beside it, compared with what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.strict_json import parse_json
from ...data.shard_index import ShardIndex
from .target import MANIFEST


@dataclass
class Comparison:
    """What a comparison found."""

    shards: int = 0
    """How many shards a manifest tells of."""
    problems: list[str] = field(default_factory=list)
    """One line each."""


def compare(indices: Iterable[ShardIndex], specs: Iterable[str]) -> Comparison:
    """``indices``, whose digests must be of bytes read just now, against the manifests beside the shards; and, where one of
    ``specs`` is a folder, whether all the shards are there that its manifest names."""
    found = Comparison()
    manifests: dict[Path, dict[str, Any]] = {}
    present: set[Path] = set()
    folders = {Path(spec).resolve() for spec in specs if Path(spec).is_dir()}
    for index in indices:
        path = Path(index.path).resolve()
        present.add(path)
        if path.parent not in manifests:
            manifests[path.parent] = _shards_of(path.parent, found)
        told = manifests[path.parent].get(path.name)
        if told is None:
            continue
        found.shards += 1
        if told != {"bytes": index.bytes, "sha256": index.sha256}:
            found.problems.append(
                f"changed shard: {index.path} is not what {path.parent / MANIFEST} says it was (sha256 {index.sha256[:12]}… and "
                f"{index.bytes} bytes instead of {str(told.get('sha256'))[:12]}… and {told.get('bytes')})"
            )
    for folder in sorted(folders):
        for name in manifests.get(folder, {}):
            if folder / name not in present:
                found.problems.append(f"missing shard: {folder / MANIFEST} names {name}, which is not there")
    return found


def _shards_of(folder: Path, found: Comparison) -> dict[str, Any]:
    """Shard name -> {bytes, sha256} as the manifest in ``folder`` has it; nothing without one. A damaged one is a problem."""
    try:
        shards = parse_json((folder / MANIFEST).read_bytes())["shards"]
        return {str(name): {"bytes": told["bytes"], "sha256": told["sha256"]} for name, told in shards.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found.problems.append(f"damaged manifest: {folder / MANIFEST} cannot be read ({type(error).__name__}: {error})")
        return {}

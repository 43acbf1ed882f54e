"""What a MANIFEST.json says of the shards beside it, compared with what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.secrets import redacted
from ...basics.strict_json import parse_json
from ...data.remote import is_remote
from ...data.shard_index import ShardIndex
from .target import MANIFEST, manifest_of


@dataclass
class Comparison:
    """What a comparison found."""

    shards: int = 0
    """How many shards a manifest tells of."""
    problems: list[str] = field(default_factory=list)
    """One line each."""


def compare(indices: Iterable[ShardIndex], specs: Iterable[str], sources: Iterable[str]) -> Comparison:
    """``indices``, whose digests must be of bytes read just now, against the manifests beside the shards, which are at
    ``sources`` (paths or URLs); and, where one of ``specs`` is a folder, whether all shards are there that its manifest names."""
    found = Comparison()
    manifests: dict[str, dict[str, Any]] = {}
    present: set[tuple[str, str]] = set()
    folders = {_whole(spec) for spec in specs if is_remote(spec) or Path(spec).is_dir()}
    for index, source in zip(indices, sources, strict=True):
        folder, _, name = _whole(source).rpartition("/")
        present.add((folder, name))
        if folder not in manifests:
            manifests[folder] = _shards_of(folder, found)
        told = manifests[folder].get(name)
        if told is None:
            continue
        found.shards += 1
        if told != {"bytes": index.bytes, "sha256": index.sha256}:
            found.problems.append(
                f"changed shard: {redacted(source)} is not what {redacted(folder)}/{MANIFEST} says it was (sha256 "
                f"{index.sha256[:12]}… and {index.bytes} bytes instead of {str(told.get('sha256'))[:12]}… and "
                f"{told.get('bytes')})"
            )
    for folder in sorted(folders):
        for name in manifests.get(folder, {}):
            if (folder, name) not in present:
                found.problems.append(f"missing shard: {redacted(folder)}/{MANIFEST} names {name}, which is not there")
    return found


def _whole(name: str) -> str:
    """A path or URL as it is compared with others. What a URL asks for beside its file is another file's no more."""
    return name.partition("?")[0].rstrip("/") if is_remote(name) else str(Path(name).resolve())


def _shards_of(folder: str, found: Comparison) -> dict[str, Any]:
    """Shard name -> {bytes, sha256} as the manifest in ``folder`` has it; nothing without one. A damaged one is a problem."""
    try:
        if (data := manifest_of(folder)) is None:
            return {}
        shards = parse_json(data)["shards"]
        return {str(name): {"bytes": told["bytes"], "sha256": told["sha256"]} for name, told in shards.items()}
    except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = f"{redacted(folder)}/{MANIFEST}"
        found.problems.append(f"damaged manifest: {where} cannot be read ({type(error).__name__}: {error})")
        return {}

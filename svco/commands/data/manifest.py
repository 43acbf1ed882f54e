"""What a MANIFEST.json says: of the shards beside it, which are compared with it, and of how each pair came to be.

Version 2 (``svco data build``): ``recipes`` are numbered from 0, each with source, licence and what every stage did and with
what; ``shards`` have under ``recipes`` the number of each of their pairs, in their order. Version 1 has neither; ``svco data
corrupt`` writes it still.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.files import file_digest
from ...basics.secrets import redacted
from ...basics.strict_json import json_text, parse_json
from ...data.near_bits import MOST_NEAR, NEAR
from ...data.remote import is_remote
from ...data.shard_index import ShardIndex
from .records import NOT_STATED, Record
from .target import MANIFEST, manifest_of

VERSION = 2
MOST_RECIPES = 1000
"""Recipes that are told apart: records of elsewhere may have another one each."""
_OF_A_PAIR = ("at", "turn", "before")
"""What a stage says of the one pair, which ``facts.provenance`` keeps."""


class Recipes:
    """How pairs came to be, each way once."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        """By their numbers; ``pairs`` counts those of each."""
        self._numbers: dict[str, int] = {}

    def number(self, record: Record) -> int:
        """The number of the way in which ``record`` came to be; counts it."""
        stages = {
            stage: {name: value for name, value in did.items() if name not in _OF_A_PAIR}
            if isinstance(did, dict)
            else did
            for stage, did in record.stages.items()
        }
        recipe = {"source": record.source, "licence": record.licence or NOT_STATED, "stages": stages}
        text = json_text(recipe, sort_keys=True)
        if text not in self._numbers and len(self.found) >= MOST_RECIPES:
            text, recipe = "others", {"others": "each pair says in facts.provenance how it came to be"}
        number = self._numbers.setdefault(text, len(self.found))
        if number == len(self.found):
            self.found.append({"pairs": 0, **recipe})
        self.found[number]["pairs"] += 1
        return number


def built_with(specs: Iterable[str]) -> int | None:
    """Bits in which near-duplicates may differ by the manifests beside shards ``specs``: of several the fewest, so that nothing
    is a leak that its build allowed; the default without any that can be read."""
    told: list[int | None] = []
    for folder in {spec if is_remote(spec) or Path(spec).is_dir() else str(Path(spec).parent) for spec in specs}:
        with suppress(OSError, UserError, ValueError, KeyError, TypeError, IndexError):
            told.append(parse_json(manifest_of(folder.rstrip("/") or "/") or b"")["build"]["near_duplicates"])
    bits = [bits for bits in told if type(bits) is int and 0 <= bits <= MOST_NEAR]
    return None if None in told else min(bits, default=NEAR)


def described(shards: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What a manifest says of each of ``shards``: name -> bytes and digest."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in shards}


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

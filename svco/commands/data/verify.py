"""Reads every byte of shards and says what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ...basics.errors import BadSample
from ...basics.progress import Progress
from ...batches.encode import admitted
from ...data.contrast import decode_pair
from ...data.shards import ShardSet, expand
from ...families import Family
from .target import MANIFEST


@dataclass
class Findings:
    """What a verification counted and found."""

    pairs: Counter[str] = field(default_factory=Counter)
    """Split -> pairs."""
    types: Counter[str] = field(default_factory=Counter)
    """Contrast type -> pairs."""
    problems: list[str] = field(default_factory=list)
    """One line each; empty: all is well."""


def verify(
    specs: list[str],
    cache: Path | None,
    progress: Progress,
    family: Family | None = None,
    equal_pictures: bool = False,
) -> Findings:
    """Digests (where a MANIFEST.json tells them), schema, decoding, repeated pairs, and pictures in two splits; with ``family``
    all that a run with its base refuses as well, by the function with which the run does (:func:`svco.batches.encode.admitted`).

    Shards are taken to be of one split when their names agree up to the number (``train-000000.tar``). UserError for
    what stops the reading altogether: no such shard, one cut short, a key twice.
    """
    found = Findings()
    splits: dict[str, list[str]] = defaultdict(list)
    for shard in expand(specs):
        splits[split_of(shard)].append(shard)
    seen_pairs: dict[str, str] = {}
    seen_images: dict[str, tuple[str, str]] = {}
    for split, names in splits.items():
        shards = ShardSet.open(names, cache)
        for index in shards.indices:
            found.problems += _digest_problems(Path(index.path), index.sha256)
        for number in progress(range(len(shards)), f"verifying {split}"):
            found.pairs[split] += 1
            try:
                pair = shards.read(number)
                if family:
                    admitted(pair, family, equal_pictures)
                else:
                    decode_pair(pair, equal_pictures)
            except BadSample as error:
                found.problems.append(f"{error.reason}: {split}: {error}")
                continue
            found.types[pair.text.contrast] += 1
            name = f"{split}/{pair.text.key}"
            images = [hashlib.sha256(data).hexdigest() for data in pair.images]
            content = json.dumps([*images, pair.text.query, *pair.text.responses])
            other = seen_pairs.setdefault(hashlib.sha256(content.encode()).hexdigest(), name)
            if other != name:
                found.problems.append(f"repeated pair: {name} is {other} again")
            for digest in images:
                home, first = seen_images.setdefault(digest, (split, name))
                if home != split:
                    found.problems.append(f"leak: a picture of {name} is also one of {first}")
    return found


def split_of(shard: str) -> str:
    """The split that a shard's name tells: ``train`` of ``train-000000.tar``."""
    return re.sub(r"-\d+$", "", Path(shard.split("?")[0]).name.removesuffix(".tar"))


def _digest_problems(path: Path, digest: str) -> list[str]:
    manifest = path.parent / MANIFEST
    try:
        expected = json.loads(manifest.read_text())["shards"].get(path.name)
    except (OSError, ValueError, KeyError):
        return []
    if expected is None or expected["sha256"] == digest:
        return []
    return [
        f"changed shard: {path} is not what {manifest} says it was (sha256 {digest[:12]}… instead of "
        f"{expected['sha256'][:12]}…)"
    ]

"""Reads every byte of shards and says what is wrong with them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ...basics.errors import BadSample
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...batches.encode import admitted
from ...data.contrast import decode_pair
from ...data.pictures import BLANK
from ...data.shard_index import ShardIndex
from ...data.shards import ShardSet, expand
from ...data.splits import split_of
from ...families import Family
from .manifest import compare


@dataclass
class Findings:
    """What a verification counted and found."""

    pairs: Counter[str] = field(default_factory=Counter)
    """Split -> pairs."""
    types: Counter[str] = field(default_factory=Counter)
    """Contrast type -> pairs."""
    problems: list[str] = field(default_factory=list)
    """One line each; empty: all is well."""
    passed: list[str] = field(default_factory=list)
    """What was read past, in words."""
    shards: int = 0
    """How many were read."""
    compared: int = 0
    """How many of them a MANIFEST.json tells of."""


def verify(
    specs: list[str],
    cache: Path | None,
    progress: Progress,
    family: Family | None = None,
    equal_pictures: bool = False,
) -> Findings:
    """Digests (where a MANIFEST.json or an index tells them), schema, decoding, repeated pairs, and pictures (by pixels) in two
    splits; with ``family`` all that a run with its base refuses as well, by the function with which the run does
    (:func:`svco.batches.encode.admitted`). Every byte is read: nothing that an index remembers is taken for true.

    Shards are taken to be of one split when their names agree up to the number (``train-000000.tar``). UserError for
    what stops the reading altogether: no such shard, one cut short, a key twice.
    """
    found = Findings()
    splits: dict[str, list[str]] = defaultdict(list)
    for shard in expand(specs):
        splits[split_of(shard)].append(shard)
    indices: list[ShardIndex] = []
    sources: list[str] = []
    seen_pairs: dict[str, str] = {}
    seen_images: dict[str, tuple[str, str]] = {}
    for split, names in splits.items():
        shards = ShardSet.open(names, cache, say=lambda fault: found.problems.append(f"stale index: {fault}"))
        indices += shards.indices
        sources += shards.sources
        found.passed += [shards.passed] if shards.passed else []
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
            name, images = f"{split}/{pair.text.key}", shards.pixels(number)  # of this reading: the index was made anew
            content = json_text([*images, pair.text.query, *pair.text.responses, pair.text.system])
            other = seen_pairs.setdefault(hashlib.sha256(content.encode()).hexdigest(), name)
            if other != name:
                found.problems.append(f"repeated pair: {name} is {other} again")
            for digest in (d for d in images if not d.startswith(BLANK)):
                home, first = seen_images.setdefault(digest, (split, name))
                if home != split:
                    found.problems.append(f"leak: a picture of {name} is also one of {first}")
    compared = compare(indices, specs, sources)
    found.shards, found.compared = len(indices), compared.shards
    found.problems += compared.problems
    return found

"""The data of a study, made once into its folder."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from ...basics.files import beside
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...data.remote import is_remote
from ...data.shards import ShardSet, write_shards
from ...data.splits import check_apart
from .spec import Source, Study

PAIRS_PER_SHARD = 128


def shards_of(study: Study, source: Source) -> tuple[str, ...]:
    """The shards that ``source`` means, whether they have been made or not."""
    return source.shards or (str(_folder(study, source)),)


def missing(study: Study) -> tuple[str, ...]:
    """Names of the sets that :func:`make_sources` would make."""
    return tuple(name for name, source in _named(study) if not source.shards and not _folder(study, source).exists())


def make_sources(study: Study, progress: Progress) -> None:
    """Makes what is not there yet. A set is whole or absent: it is written beside its place and moved there."""
    for name, source in _named(study):
        _make(study, name, source, progress)


def check_sources_apart(study: Study) -> None:
    """UserError when a training set shares keys or pictures with a test set or the validation set. Of shards that lie elsewhere
    nothing is fetched for that: svco train and svco eval compare theirs when they run."""
    allow = str(study.settings.get("data.allow_overlap", "none"))
    trained, held = (
        {name: _opened(study, *given) for name, given in sets.items()} for sets in _trained_and_held(study)
    )
    for (data, ours), (test, theirs) in product(trained.items(), held.items()):
        if ours and theirs:
            check_apart(
                {data: ours.indices, test: theirs.indices}, allow, "in the study's settings, data.allow_overlap: "
            )


def _opened(study: Study, source: Source, split: str) -> ShardSet | None:
    specs = shards_of(study, source)
    return (
        None if any(map(is_remote, specs)) else ShardSet.open(specs, study.settings.get("data.cache_dir"), split=split)
    )


def _trained_and_held(study: Study) -> tuple[dict[str, tuple[Source, str]], dict[str, tuple[Source, str]]]:
    """What some group trains on, and what it is tested or its trials are judged on: name for people -> (source, split)."""
    trained = {data for group in study.groups for _, row in group.cells for data in (row, group.tuned_on)}
    tested = {test for group in study.groups for test in group.tests}
    ours = {f"the training set {name}": (source, "train") for name, source in study.data.items() if name in trained}
    theirs = {f"the test set {name}": (source, "heldout") for name, source in study.tests.items() if name in tested}
    return ours, theirs | ({"the validation set": (study.validation, "validation")} if study.trials else {})


def _named(study: Study) -> list[tuple[str, Source]]:
    """Every set that some group needs, by its name for people."""
    return [(name, source) for sets in _trained_and_held(study) for name, (source, _) in sets.items()]


def identity(study: Study, source: Source) -> dict[str, Any]:
    """Everything that decides what the pairs of ``source`` are, as far as the study knows."""
    below = {"of": identity(study, study.data[source.corrupt])} if source.corrupt else {}
    return asdict(source) | below


def _folder(study: Study, source: Source) -> Path:
    digest = hashlib.sha256(json_text(identity(study, source), sort_keys=True).encode()).hexdigest()[:10]
    return Path(study.root) / "data" / f"{source.world or source.kind}-{source.split}-{digest}"


def _make(study: Study, name: str, source: Source, progress: Progress) -> None:
    folder = _folder(study, source)
    if source.shards or folder.exists():
        return
    if source.corrupt:
        _make(study, source.corrupt, study.data[source.corrupt], progress)
    temporary = beside(folder)
    if source.world:
        from ...tiny_world.variants import Variant

        variant = Variant(source.world, source.style, source.side, source.opacity)
        pairs = progress(list(range(source.pairs)), f"drawing {name}")
        drawn = variant.pairs(source.split, source.pairs)
        write_shards((next(drawn) for _ in pairs), temporary, source.split, PAIRS_PER_SHARD)
    else:
        from ...recipe.config import CorruptConfig
        from ..data.corrupt import corrupt_shards

        corrupt_shards(
            shards_of(study, study.data[source.corrupt]),
            temporary,
            CorruptConfig(kind=source.kind),
            side=source.kept,
            progress=progress,
        )
    try:
        temporary.rename(folder)
    except OSError:  # another job made it meanwhile
        shutil.rmtree(temporary)
        if not folder.exists():
            raise

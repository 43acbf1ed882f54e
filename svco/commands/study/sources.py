"""The data of a study, made once into its folder."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...basics.files import beside
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...data.shards import write_shards
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


def _named(study: Study) -> list[tuple[str, Source]]:
    """Every set that some group needs, by its name; a training set and a test set may have the same one."""
    trained = {data for group in study.groups for _, row in group.cells for data in (row, group.tuned_on)}
    tested = {test for group in study.groups for test in group.tests}
    return [
        *((name, source) for name, source in study.data.items() if name in trained),
        *((name, source) for name, source in study.tests.items() if name in tested),
        *([("validation", study.validation)] if study.trials else []),
    ]


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

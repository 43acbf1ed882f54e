"""One split of the data: its shards with the lengths of their pairs, and the loaders that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..basics.dist import World
from ..basics.progress import Progress
from ..basics.views import Cell
from ..data.corruption import Corruptions
from ..data.order import GivenOrder
from ..data.pairs import PairSource
from ..data.shards import DEFAULT_CACHE, ShardSet
from ..data.splits import check_apart
from ..families import Family
from ..recipe.config import Config
from .encode import Encode
from .lengths import Lengths, measure_lengths
from .loader import Loader, PairOrder
from .pack import PackedCollate


@dataclass(frozen=True)
class Measured:
    """Pairs with their lengths: what a loader needs of them."""

    shards: PairSource
    """The pairs."""
    lengths: Lengths
    """Their token counts."""


@dataclass(frozen=True)
class Split(Measured):
    """One split's shards with the lengths of its pairs."""

    shards: ShardSet
    """The pairs."""

    @classmethod
    def open(
        cls,
        specs: tuple[str, ...],
        family: Family,
        cache: Path,
        world: World,
        progress: Progress,
        equal_pictures: bool = False,
        name: str = "",
    ) -> Split:
        """The pairs of ``specs``, measured; of a folder of splits those of ``name``, a key of ``splits.NAMES``. A collective.
        ``equal_pictures``: see ``data.equal_pictures``."""

        # Rank 0 builds indices, once; the others get them from it and never race on the files.
        shards = world.on_main(lambda: ShardSet.open(specs, cache_dir=cache, split=name, progress=progress))
        if world.local_rank == 0:
            shards.fetch(cache)
        world.barrier()
        return cls(shards, measure_lengths(shards, family, cache, world, progress, equal_pictures))


def open_splits(config: Config, family: Family, world: World, progress: Progress) -> dict[str, Split]:
    """The splits that a recipe names, by their keys of section ``data``. A collective; UserError where two share something."""
    data = config.data
    named = {"train": data.train, "validation": data.validation, "heldout": data.heldout}
    splits = {
        name: Split.open(specs, family, cache_dir(config), world, progress, data.equal_pictures, name)
        for name, specs in named.items()
        if specs or name == "train"
    }
    shards = {f"data.{name}": split.shards.indices for name, split in splits.items()}
    world.on_main(lambda: check_apart(shards, data.allow_overlap))
    return splits


def cache_dir(config: Config) -> Path:
    """Where remote shards, indices and lengths are kept."""
    return Path(config.data.cache_dir or DEFAULT_CACHE).expanduser()


def make_loader(
    split: Measured,
    order: PairOrder,
    cells: frozenset[Cell],
    family: Family,
    config: Config,
    world: World,
    start: int,
    stop: int,
    references: np.ndarray | None = None,
) -> Loader:
    """This rank's micro-batches of the steps ``start`` to ``stop`` of ``order``, laid out for ``cells``."""
    collate = PackedCollate(cells)
    return Loader(
        split.shards,
        order,
        collate.costs(split.lengths),
        Encode(family, collate, Corruptions.of(cells, config.corrupt), config.data.equal_pictures),
        world=world.size,
        rank=world.rank,
        budget=config.optim.tokens_per_micro_batch,
        workers=config.data.workers,
        start=start,
        stop=stop,
        references=references,
    )


def evaluation_loader(
    split: Measured,
    cells: frozenset[Cell],
    family: Family,
    config: Config,
    world: World,
    *,
    at_once: int,
    at_most: int = 0,
    references: np.ndarray | None = None,
) -> Loader:
    """``cells`` of the first ``at_most`` (0: all) pairs of ``split``, once each, ``at_once`` pairs a step over all ranks."""
    count = min(len(split.shards), at_most or len(split.shards))
    order = GivenOrder(np.arange(count), at_once)
    return make_loader(split, order, cells, family, config, world, 0, order.steps_per_epoch, references)

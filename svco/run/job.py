"""A recipe made concrete without touching a weight: shards, template, lengths, order, number of steps.

What ``--dry-run`` prints and what ``train`` runs are the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.views import Cell
from ..batches.encode import Lengths, Prepare, measure_lengths
from ..batches.loader import Loader
from ..batches.pack import PackedCollate
from ..data.corruption import Corruptions
from ..data.order import Order
from ..data.shards import ShardSet
from ..families import Family, load_family
from ..objectives.reference import choose_reference
from ..objectives.table import Objective, make_objective
from ..recipe.config import Config
from ..scores.pair_scores import InOrder

Progress = Callable[[Any, str], Any]
"""(iterable, what is being done) -> the iterable, shown as it goes."""


@dataclass(frozen=True)
class Split:
    """One split's shards with the lengths of its pairs."""

    shards: ShardSet
    """The pairs."""
    lengths: Lengths
    """Their token counts."""

    @classmethod
    def open(cls, specs: tuple[str, ...], family: Family, cache: Path, world: World, progress: Progress) -> Split:
        def opened() -> Split:
            shards = ShardSet.open(specs, cache_dir=cache)
            return cls(
                shards, measure_lengths(shards, family, cache, lambda items: progress(items, "measuring lengths"))
            )

        # Rank 0 builds indices and lengths, once; the others get them from it and never race on the files.
        split = world.on_main(opened)
        if world.local_rank == 0:
            split.shards.fetch(cache)
        world.barrier()
        return split


@dataclass(frozen=True)
class Job:
    """Everything about a run that is decided before the model is loaded."""

    config: Config
    """The resolved recipe."""
    family: Family
    """The base model's adapter."""
    objective: Objective
    """The loss."""
    train: Split
    """Training pairs."""
    order: Order
    """Which pairs each step consumes."""
    steps: int
    """Optimiser steps of the whole run."""
    reference: str
    """Where the reference's log-probs come from."""

    def largest_pack(self, world: World) -> int:
        """Tokens that no micro-batch of the run exceeds."""
        longest = int(PackedCollate(self.objective.cells).costs(self.train.lengths).max())
        # A rank's share: its part of the longest pairs, and one more where they cannot be divided evenly.
        share = longest * (-(-self.order.global_batch // world.size) + 1)
        return max(longest, min(self.config.optim.tokens_per_micro_batch, share))

    def due(self, step: int, every: int) -> bool:
        """Whether what happens every ``every`` steps (0: at the end only) happens after ``step``."""
        return step == self.steps or (every > 0 and step % every == 0)

    def loader(self, world: World, start: int, references: np.ndarray | None) -> Loader:
        """The training micro-batches of this rank from step ``start`` on, with cached ``references`` if there are any."""
        cells = self.objective.cells
        return make_loader(
            self.train, self.order, cells, self.family, self.config, world, start, self.steps, references
        )


def make_job(config: Config, world: World, progress: Progress) -> Job:
    """Resolves a recipe. A collective; every rank returns the same."""
    objective = make_objective(config.objective)
    reference = choose_reference(config.model.reference, config.model.tune, objective)
    family = load_family(config.model.base, config.data.max_text_tokens, config.model.paper_compat)
    train = Split.open(config.data.train, family, cache_dir(config), world, progress)
    optim = config.optim
    if optim.global_batch < world.size:
        raise UserError(
            f"optim.global_batch is {optim.global_batch} pairs but there are {world.size} ranks; every rank needs at "
            f"least one pair a step. Use at least {world.size}."
        )
    order = Order(
        seed=config.run.seed,
        shard_sizes=train.shards.shard_sizes,
        global_batch=optim.global_batch,
        block_shards=config.data.block_shards,
    )
    steps = optim.steps or round(optim.epochs * order.steps_per_epoch)
    if steps < 1:
        raise UserError(f"optim.epochs is {optim.epochs} and optim.steps is 0, which makes a run of no steps.")
    return Job(config, family, objective, train, order, steps, reference)


def cache_dir(config: Config) -> Path:
    return Path(config.data.cache_dir or "~/.cache/svco").expanduser()


def make_loader(
    split: Split,
    order: Any,
    cells: frozenset[Cell],
    family: Family,
    config: Config,
    world: World,
    start: int,
    stop: int,
    references: np.ndarray | None = None,
) -> Loader:
    collate = PackedCollate(cells)
    return Loader(
        split.shards,
        order,
        collate.costs(split.lengths),
        Prepare(family, collate, Corruptions.of(cells, config.corrupt)),
        world=world.size,
        rank=world.rank,
        budget=config.optim.tokens_per_micro_batch,
        workers=config.data.workers,
        start=start,
        stop=stop,
        references=references,
    )


def evaluation_loader(
    split: Split,
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
    order = InOrder(count, at_once)
    return make_loader(split, order, cells, family, config, world, 0, order.steps_per_epoch, references)


def describe(job: Job, world: World) -> str:
    """The derived values a person checks before a run, with a histogram of the pairs' lengths."""
    lengths, cells = job.train.lengths, job.objective.cells
    costs = PackedCollate(cells).costs(lengths)
    summary = lengths.summary()
    per_step = costs.mean() * job.order.global_batch
    micro = max(1, round(per_step / world.size / job.config.optim.tokens_per_micro_batch + 0.5))
    rows = [
        ("ranks", world.size),
        ("training pairs", f"{summary['pairs']:,} in {len(job.train.shards.shard_sizes)} shards"),
        ("steps", f"{job.steps:,} of {job.order.global_batch} pairs ({job.order.steps_per_epoch:,} an epoch)"),
        ("cells a pair", len(cells)),
        ("reference", job.reference),
        ("micro-batches a step and rank", f"about {micro}"),
        ("tokens a pair", f"mean {costs.mean():.0f}, longest {costs.max()}"),
        ("tokens a step", f"about {per_step:,.0f}, one stream"),
        ("responses cut", f"{summary['cut']:,} pairs ({int(lengths.cut.sum()):,} tokens)"),
        ("bad pairs", ", ".join(f"{count} {reason}" for reason, count in sorted(summary["bad"].items())) or "none"),
    ]
    if job.config.data.validation or job.config.data.heldout:
        rows.append(("held back", ", ".join((*job.config.data.validation, *job.config.data.heldout))))
    text = "\n".join(f"{name + ':':<32}{value}" for name, value in rows)
    return f"{text}\n\ntokens of a pair, packed:\n{histogram(costs)}"


def histogram(values: np.ndarray, bins: int = 10, width: int = 40) -> str:
    """A histogram of whole numbers in text, one line a bin."""
    edges = np.unique(np.linspace(values.min(), values.max() + 1, bins + 1).astype(int))
    counts, edges = np.histogram(values, edges)
    return "\n".join(
        f"{low:>7} to {high - 1:<7}{count:>8} {'█' * round(width * count / counts.max())}"
        for low, high, count in zip(edges, edges[1:], counts)
    )

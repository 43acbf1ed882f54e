"""Computes what a cached reference lacks, with the run's own engine, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.views import views_of, whole
from ..data.corruption import Corruptions
from ..engine import Engine
from ..model.load import Tuned, model_files
from ..objectives.reference import ReferenceCache, weights_digest
from ..recipe.config import Config
from ..scores.pair_scores import score_pairs
from .job import Job, Split, cache_dir, make_loader

_STEPS_A_SAVE = 64
"""Loader steps between two saves: what a killed run loses at most."""


@dataclass(frozen=True)
class Rows:
    """The pairs ``index`` one after another, as an order of steps."""

    index: np.ndarray
    """Indices in the shard set."""
    global_batch: int
    """Pairs a step over all ranks."""

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.index) // self.global_batch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        return 0, self.index[step * self.global_batch : (step + 1) * self.global_batch]


class Precompute:
    """Gives each split its cached reference. The default of a run that needs none is ``lambda split: None``."""

    def __init__(
        self,
        job: Job,
        tuned: Tuned,
        engine: Engine,
        world: World,
        progress: Callable[[Iterable[Any], str], Iterable[Any]],
        resumed: bool,
    ):
        self.job, self.tuned, self.engine, self.world = job, tuned, engine, world
        self.progress, self.resumed = progress, resumed

    def __call__(self, split: Split) -> np.ndarray:
        """(N, 2, V) float32 log-probs of the reference for every pair of ``split``; computed here where missing. A collective."""
        config, cells = self.job.config, whole(self.job.objective.cells)
        facts = self.world.on_main(lambda: cache_facts(self.job, self.tuned, split, self.world))
        cache = self.world.on_main(
            lambda: ReferenceCache.open(
                Path(config.run.root) / "references", facts, len(split.shards), len(views_of(cells))
            )
        )
        missing = cache.missing
        if len(missing) and self.resumed and self.tuned.wrapped is None:
            raise UserError(
                f"The cached reference {cache.path} is missing or incomplete, and a resumed full fine-tuning no longer has "
                "the base model to compute it with. Put the file back, or start a new run."
            )
        order = Rows(missing, max(self.world.size, config.optim.global_batch))
        self.engine.train(False)
        with self.tuned.scorer.as_reference():
            for first in range(0, order.steps_per_epoch, _STEPS_A_SAVE):
                last = min(order.steps_per_epoch, first + _STEPS_A_SAVE)
                loader = make_loader(split, order, cells, self.job.family, config, self.world, first, last)
                scores = score_pairs(self.engine, self.progress(loader, "computing the reference"), self.world)
                attempted = missing[first * order.global_batch : last * order.global_batch]
                cache.put(attempted, scores.index, scores.policy)
                if self.world.is_main:
                    cache.save(facts)
        self.engine.train()
        return cache.logps


def cache_facts(job: Job, tuned: Tuned, split: Split, world: World) -> dict[str, Any]:
    """Everything the reference's log-probs of ``split`` depend on."""
    config: Config = job.config
    cells = job.objective.cells
    return {
        "weights": weights_digest(model_files(config.model.base), cache_dir(config) / "digests.json"),
        "text": job.family.fingerprint,
        "pixels": job.family.pixel_fingerprint,
        "corruption": Corruptions.of(cells, config.corrupt).fingerprint,
        "views": views_of(cells),
        "dtype": str(tuned.policy.dtype),
        "device": world.device.type,
        "attention": tuned.attention,
        "compile": config.model.compile,
        "pairs": split.shards.digest,
    }

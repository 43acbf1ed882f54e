"""A recipe made concrete without touching a weight: shards, template, lengths, order, number of steps.

What ``--dry-run`` prints and what ``train`` runs are the same object.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.progress import Progress
from ..basics.secrets import redacted
from ..basics.views import CORRUPT, cells_to_evaluate
from ..batches.loader import Loader
from ..batches.pack import PackedCollate
from ..batches.split import Split, make_loader, open_splits
from ..data.order import ORDER_VERSION, Order
from ..families import Family, load_family
from ..objectives.reference import choose_reference
from ..objectives.table import Objective, make_objective
from ..recipe.config import Config, DataConfig
from ..record.manifest import Position
from ..scores.before_after import measure_to_judge_by


@dataclass(frozen=True)
class Job:
    """Everything about a run that is decided before the model is loaded."""

    config: Config
    """The resolved recipe."""
    family: Family
    """The base model's adapter."""
    objective: Objective
    """The loss."""
    splits: Mapping[str, Split]
    """``train`` and, where the recipe names them, ``validation`` and ``heldout``: no two share a pair or a picture."""
    order: Order
    """Which pairs each step consumes."""
    steps: int
    """Optimiser steps of the whole run."""
    reference: str
    """Where the reference's log-probs come from."""
    judged_by: tuple[str, bool] | None
    """Measure of the validation that says which checkpoint is the best, and whether higher is better."""

    @property
    def train(self) -> Split:
        """Training pairs."""
        return self.splits["train"]

    def largest_pack(self, world: World) -> int:
        """Tokens that no micro-batch of the run exceeds."""
        longest = int(PackedCollate(self.objective.cells).costs(self.train.lengths).max())
        # A rank's share: its part of the longest pairs, and one more where they cannot be divided evenly.
        share = longest * (-(-self.order.global_batch // world.size) + 1)
        return max(longest, min(self.config.optim.tokens_per_micro_batch, share))

    @property
    def verify_command(self) -> str:
        """The command that lists every training pair that this run refuses, and why."""
        data, model = self.config.data, self.config.model
        line = ["svco", "data", "verify", *map(redacted, data.train), "--base", model.base]
        if data.max_text_tokens != DataConfig.max_text_tokens:
            line += ["--max-text-tokens", str(data.max_text_tokens)]
        line += ["--paper-compat"] * model.paper_compat + ["--equal-pictures"] * data.equal_pictures
        return shlex.join(line)

    def due(self, step: int, every: int) -> bool:
        """Whether what happens every ``every`` steps (0: at the end only) happens after ``step``."""
        return step == self.steps or (every > 0 and step % every == 0)

    @property
    def position(self) -> Position:
        """Where the run stands before its first step."""
        return Position(
            step=0,
            epoch=0,
            pairs=0,
            seed=self.config.run.seed,
            global_batch=self.order.global_batch,
            steps=self.steps,
            data=self.train.shards.digest,
            order=ORDER_VERSION,
            tune=self.config.model.tune,
            bad={},
        )

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
    splits = open_splits(config, family, world, progress)
    judged_by = None
    if by := config.checkpoint.keep_best:
        judged_by = measure_to_judge_by(by, any(view == CORRUPT for _, view in cells_to_evaluate(objective.cells)))
    optim = config.optim
    if optim.global_batch < world.size:
        raise UserError(
            f"optim.global_batch is {optim.global_batch} pairs but there are {world.size} ranks; every rank needs at "
            f"least one pair a step. Use at least {world.size}."
        )
    order = Order(
        seed=config.run.seed,
        shard_sizes=splits["train"].shards.shard_sizes,
        global_batch=optim.global_batch,
        block_shards=config.data.block_shards,
    )
    steps = optim.steps or round(optim.epochs * order.steps_per_epoch)
    if steps < 1:
        raise UserError(f"optim.epochs is {optim.epochs} and optim.steps is 0, which makes a run of no steps.")
    return Job(config, family, objective, splits, order, steps, reference, judged_by)

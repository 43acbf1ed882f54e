"""What is to be planned: a recipe made concrete without weights, with every assumption that had to be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...basics.errors import UserError
from ...basics.views import BLIND_CONDITION
from ...objectives.reference import choose_reference
from ...recipe.config import ALL_LINEAR, Config
from .architecture import Architecture, architecture
from .workload import Row, Tuning, pair_row

if TYPE_CHECKING:
    from ...objectives.table import Objective


@dataclass(frozen=True)
class Assumed:
    """Lengths where the shards are not here."""

    prompt: float = 40
    """Text tokens before a response, the template's included."""
    response: float = 60
    """Tokens of a response."""
    image_tokens: float = 0
    """Tokens of an image; 0: those of one of 640 × 480 pixels."""
    pairs: int = 11_000
    """Training pairs; the authors' data set has about so many."""


@dataclass(frozen=True)
class Question:
    """A recipe with its numbers."""

    recipe: str
    """Its name."""
    config: Config
    """The recipe."""
    architecture: Architecture
    """Of the base model."""
    tuning: Tuning
    """What learns."""
    pair: Row
    """The average pair."""
    longest: Row
    """The pair with the most tokens."""
    pairs: int
    """Training pairs."""
    assumptions: tuple[str, ...]
    """What was not known, a sentence each."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        optim = self.config.optim
        return optim.steps or max(1, round(optim.epochs * (self.pairs // optim.global_batch)))


def ask(recipe: str, config: Config, assumed: Assumed, measure: bool = True) -> Question:
    """The question that ``config`` poses. Lengths are measured where ``measure`` and the shards are here, else ``assumed``."""
    from ...objectives.table import make_objective

    objective = make_objective(config.objective)
    a = architecture(config.model.base)
    tuning = Tuning.of(config, choose_reference(config.model.reference, config.model.tune, objective))
    _check_targets(tuning, a)
    lengths = _measured(config) if measure else None
    if lengths is None:
        pair, assumptions = _assumed(a, objective, assumed)
        return Question(recipe, config, a, tuning, pair, pair, assumed.pairs, assumptions + _kernels(a))
    prefixes, responses = lengths.prefixes.astype(float).T, lengths.responses.astype(float).T
    features = (prefixes[0] + prefixes[1]) / 2 - prefixes[BLIND_CONDITION]
    rows = pair_row(objective.cells, prefixes, responses, features, _crops(a, features), a)
    longest = np.argmax(rows.tokens)
    # Images may be one number for all pairs.
    columns = {name: np.broadcast_to(values, len(lengths.cut)) for name, values in vars(rows).items()}
    return Question(
        recipe=recipe,
        config=config,
        architecture=a,
        tuning=tuning,
        pair=Row(**{name: float(values.mean()) for name, values in columns.items()}),
        longest=Row(**{name: float(values[longest]) for name, values in columns.items()}),
        pairs=len(lengths.cut),
        assumptions=(f"lengths: measured, {len(lengths.cut):,} pairs", *_kernels(a)),
    )


def _kernels(a: Architecture) -> tuple[str, ...]:
    if not a.delta:
        return ()
    return (
        f"{len(a.delta.numbers)} layers carry a state: flash-linear-attention is assumed to be installed; without it they keep "
        "about twice as much",
    )


def _check_targets(tuning: Tuning, a: Architecture) -> None:
    known = {linear.name for linear in a.every_linear}
    if not tuning.full and (missing := sorted({*tuning.targets} - {ALL_LINEAR} - known)):
        raise UserError(
            f"lora.targets names {', '.join(missing)}; the decoder layers of {a.name} have {', '.join(known)}."
        )


def _assumed(a: Architecture, objective: Objective, assumed: Assumed) -> tuple[Row, tuple[str, ...]]:
    features = assumed.image_tokens or a.image_tokens
    shown = assumed.prompt + features
    pair = pair_row(
        objective.cells, (shown, shown, assumed.prompt), (assumed.response,) * 2, features, _crops(a, features), a
    )
    return pair, (
        f"lengths: {assumed.prompt:g} prompt, {assumed.response:g} response and {features:g} image tokens are assumed "
        "(--prompt, --response, --image-tokens)",
        f"training pairs: {assumed.pairs:,} are assumed (--pairs)",
    )


def _crops(a: Architecture, features: Any) -> Any:
    """Crops of an image: of any-resolution tiles the last is partly padding; a few tokens around an image are none."""
    return np.maximum(1.0, np.ceil(features / a.tower.crop_features - 0.02)) if a.tower.crop_features else 1.0


def _measured(config: Config) -> Any:
    """The lengths of the training pairs, or None where shards or base model are not here."""
    from ...basics.dist import World
    from ...batches.lengths import measure_lengths
    from ...batches.split import cache_dir
    from ...data.shards import ShardSet, expand
    from ...families import load_family

    try:
        if not Path(config.model.base).is_dir() or not all(
            Path(name).exists() for name in expand(config.data.train, "train")
        ):
            return None
    except UserError:  # a pattern that matches nothing here
        return None
    family = load_family(config.model.base, config.data.max_text_tokens, config.model.paper_compat)
    shards = ShardSet.open(config.data.train, cache_dir(config), split="train")
    return measure_lengths(shards, family, cache_dir(config), World(), equal_pictures=config.data.equal_pictures)

"""The log-probabilities of every cell of a shard set under one model, and the file that keeps them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.progress import Progress, silent
from ...basics.sealed import read_arrays, write_arrays
from ...basics.views import ALL_CELLS, CORRUPT, cells_to_evaluate
from ...batches.lengths import Lengths, measure
from ...batches.split import Measured, Split, cache_dir, evaluation_loader
from ...data.pairs import PairSource
from ...model.subject import Subject
from ...recipe.config import Config, CorruptConfig, DataConfig, OptimConfig
from ...scores.pair_scores import PairScores, score_pairs

PAIRS_A_STEP = 64
"""Pairs a rank reads ahead in one step."""


@dataclass(frozen=True)
class Effort:
    """How much is done at a time; no result depends on it."""

    tokens: int = 16384
    """Tokens of one forward pass on one rank."""
    workers: int = 1
    """Loader processes a rank."""
    answers: int = 16
    """Answers generated side by side."""
    cache: str = ""
    """Where indices and lengths are kept; empty: ``~/.cache/svco``."""


@dataclass(frozen=True)
class SetScores:
    """What one model says of the N pairs of one set, in the set's order; bad pairs are left out."""

    key: np.ndarray
    """(N,) str, unique."""
    contrast: np.ndarray
    """(N,) str: contrast type."""
    kind: np.ndarray
    """(N,) str: the source's own finer type, or empty."""
    logps: np.ndarray
    """(N, 2, V) float64, nats: response of side s under view v."""
    tokens: np.ndarray
    """(N, 2) int64: scored tokens of each response."""
    bad: int = 0
    """Pairs that could not be scored."""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: np.ndarray) -> SetScores:
        """The pairs at ``rows`` (n,) int64."""
        return SetScores(self.key[rows], self.contrast[rows], self.kind[rows], self.logps[rows], self.tokens[rows])

    def save(self, path: Path) -> None:
        """An ``.npz`` with the arrays by their names, replaced in one move."""
        write_arrays(path, **{name: value for name, value in vars(self).items() if name != "bad"})

    @classmethod
    def load(cls, path: Path) -> SetScores:
        """UserError when the file is not there or is something else."""
        try:
            key, contrast, kind, logps, tokens = read_arrays(path, "key", "contrast", "kind", "logps", "tokens")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} does not hold scores of an evaluation ({error}). Give the --out of an svco eval."
            ) from None
        return cls(key, contrast, kind, logps, tokens)


def open_set(
    subject: Subject, name: str, specs: tuple[str, ...], world: World, effort: Effort, show: Progress
) -> Split:
    """The shards of one ``--set NAME=SPECS`` with their lengths. A collective; UserError for a spec that means nothing."""
    if not specs:
        raise UserError(
            f"--set {name}= names no shards. Give a path, brace pattern, glob, directory or URL behind '='."
        )
    return Split.open(specs, subject.family, cache_dir(_config(effort)), world, show, name="heldout")


def score_set(
    subject: Subject,
    split: Split,
    world: World,
    *,
    at_most: int = 0,
    corrupt: CorruptConfig | None = None,
    effort: Effort = Effort(),  # noqa: B008 frozen
    show: Progress = silent,
) -> SetScores:
    """Scores all cells of the first ``at_most`` (0: all) pairs of ``split``; those of the corrupt view too where ``corrupt`` says
    how. A collective; every rank gets all results."""
    cells = cells_to_evaluate({(0, CORRUPT)} if corrupt else ())
    loader = evaluation_loader(
        split,
        cells,
        subject.family,
        _config(effort, corrupt),
        world,
        at_once=PAIRS_A_STEP * world.size,
        at_most=at_most,
    )
    found = score_pairs(subject.scorer, show(loader, "scoring pairs"), world)

    def named() -> list[tuple[str, str, str]]:
        texts = (split.shards.read_text(index) for index in found.index.tolist())
        return [(text.key, text.contrast, text.kind or "") for text in texts]

    rows = world.on_main(named)
    key, contrast, kind = (np.array([row[n] for row in rows], dtype=str) for n in range(3))
    return SetScores(key, contrast, kind, found.policy, found.tokens, found.bad)


def score_source(
    subject: Subject, pairs: PairSource, world: World, *, effort: Effort, show: Progress, what: str
) -> tuple[PairScores, Lengths]:
    """(scores, lengths) of all cells but the corrupted ones of pairs that are in no shard. Two images that show the same are
    scored too: whoever made a benchmark wanted them. A collective; every rank gets all results."""
    # Lengths are not kept: measuring them takes no longer than finding out whether the kept ones are these.
    lengths = measure(pairs, subject.family, world, show, equal_pictures=True, whose=f"{what}: ")
    config = _config(effort)
    loader = evaluation_loader(
        Measured(pairs, lengths),
        ALL_CELLS,
        subject.family,
        replace(config, data=replace(config.data, equal_pictures=True)),
        world,
        at_once=PAIRS_A_STEP * world.size,
    )
    return score_pairs(subject.scorer, show(loader, f"{what}: scoring pairs"), world), lengths


def _config(effort: Effort, corrupt: CorruptConfig | None = None) -> Config:
    return Config(
        corrupt=corrupt or CorruptConfig(),
        data=DataConfig(workers=effort.workers, cache_dir=effort.cache),
        optim=OptimConfig(tokens_per_micro_batch=effort.tokens),
    )

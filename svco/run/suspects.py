"""Which pairs a step was skipped for: those whose loss is not finite, or whose gradient alone is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..batches.loader import StepBatches
from .job import Job

if TYPE_CHECKING:
    import torch

    from ..batches.pack import PackedBatch


@dataclass(frozen=True)
class Suspect:
    """A pair whose loss, terms or gradient are not finite."""

    key: str
    """Its key."""
    terms: dict[str, str]
    """Loss, term or ``gradient`` -> what it is: ``nan``, ``inf`` or ``-inf``."""


def of_losses(job: Job, part: StepBatches, reports: Sequence[Mapping[str, torch.Tensor]]) -> Iterator[Suspect]:
    """Those of this rank whose ``reports`` (name -> (P,) values, one of each micro-batch) hold what is not finite."""
    for report, indices in zip(reports, part.indices, strict=True):
        for row, index in enumerate(indices):
            values = {name: float(of_pairs[row]) for name, of_pairs in report.items()}
            if terms := {name: str(value) for name, value in values.items() if not math.isfinite(value)}:
                yield Suspect(job.train.shards.key(index), terms)


def of_gradients(
    job: Job, indices: Sequence[int], batch: PackedBatch, heard: Sequence[torch.Tensor]
) -> Iterator[Suspect]:
    """Those of one micro-batch whose gradient was not finite in its backward pass, which left ``heard``.

    Every row position is of one pair, and what is not finite goes down from layer to layer: where it is seen first, it is of the
    pair that brought it. (Below, dense attention may spread it over the trees that share a padded block.)
    """
    first = next((flags.cpu() for flags in heard if flags.any()), None)
    if first is None:
        return
    owners = batch.owners()
    for row, index in enumerate(indices):
        if worst := int(first[owners == row].amax()):
            yield Suspect(job.train.shards.key(index), {"gradient": ("", "inf", "nan")[worst]})

"""The identity of a run: the keys of its recipe that decide its numbers, and the digests of what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..batches.split import cache_dir
from ..data.corruption import Corruptions
from ..model.provenance import BASE_WEIGHTS, DIGESTS, unchanged, weights_digest
from ..recipe.limits import get, kinds
from .job import Job

FREE = (
    "run.",
    "checkpoint.",
    "evaluate.",
    "data.validation",
    "data.heldout",
    "data.allow_overlap",
    "data.workers",
    "data.cache_dir",
    "data.max_bad_fraction",
    "model.attention",
    "model.compile",
    "optim.tokens_per_micro_batch",
    "optim.recompute",
    "optim.activation_gb",
    "optim.max_skipped_steps",
    "optim.max_skipped_fraction",
)
"""Keys, and sections, that may change when a run goes on: they say where it lives, what it costs and how it is watched."""
TOLD_OTHERWISE = (
    "data.train",
    "model.base",
    "model.dtype",
    "model.reference",
    "lora.init_from",
    "optim.steps",
    "optim.epochs",
)
"""Keys whose effect is compared instead: digests, resolved values, the number of steps; a warm start is over when a run goes
on."""


def identity_of(job: Job, dtype: str) -> dict[str, Any]:
    """Fact -> value, as JSON keeps it. Reads the base's weights once (digests of unchanged files are remembered). UserError
    where the base is a model of svco's own that has changed since."""
    config, memory = job.config, cache_dir(job.config) / DIGESTS
    if Path(config.model.base).is_dir():
        unchanged(config.model.base, memory)
    idle = [*FREE, *TOLD_OTHERWISE]
    idle += ["lora."] if config.model.tune == "full" else []
    idle += [] if Corruptions.of(job.objective.cells, config.corrupt).fingerprint != "none" else ["corrupt."]
    facts = {key: get(config, key) for key, _ in kinds() if not key.startswith(tuple(idle))}
    facts |= {
        "model.dtype": dtype,
        "model.reference": job.reference,
        BASE_WEIGHTS: weights_digest(config.model.base, memory),
        "the base model's template": job.family.fingerprint,
        "the base model's pixels": job.family.pixel_fingerprint,
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}

"""The identity of a run: the keys of its recipe that decide its numbers, and the digests of what it starts from."""

from __future__ import annotations

from typing import Any

from ..batches.split import cache_dir
from ..data.corruption import Corruptions
from ..model.load import model_files
from ..recipe.limits import get, kinds
from .cached_reference import weights_digest
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
    """Fact -> value, as JSON keeps it. Reads the base's weights once (digests of unchanged files are remembered)."""
    config = job.config
    idle = [*FREE, *TOLD_OTHERWISE]
    idle += ["lora."] if config.model.tune == "full" else []
    idle += [] if Corruptions.of(job.objective.cells, config.corrupt).fingerprint != "none" else ["corrupt."]
    facts = {key: get(config, key) for key, _ in kinds() if not key.startswith(tuple(idle))}
    facts |= {
        "model.dtype": dtype,
        "model.reference": job.reference,
        "the base model's weights": weights_digest(model_files(config.model.base), cache_dir(config) / "digests.json"),
        "the base model's template": job.family.fingerprint,
        "the base model's pixels": job.family.pixel_fingerprint,
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}

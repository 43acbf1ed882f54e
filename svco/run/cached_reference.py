"""A reference that is computed once, with the run's own engine before its first step, and read from a file ever after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import file_digest, file_mark, replacing
from ..basics.progress import Progress, shown
from ..basics.sealed import arrays_digest
from ..basics.strict_json import json_text
from ..basics.views import VIEWS, cells_to_evaluate, views_of
from ..batches.split import Split, make_loader
from ..data.corruption import Corruptions
from ..data.order import GivenOrder
from ..data.pictures import DECODING
from ..engine import Engine
from ..model.load import Tuned
from ..model.provenance import fingerprint, model_files
from ..scores.pair_scores import score_pairs
from .job import Job

_STEPS_A_SAVE = 64
"""Loader steps between two saves: what a killed run loses at most."""


def reference_of(
    split: Split, job: Job, tuned: Tuned, engine: Engine, world: World, progress: Progress, resumed: bool
) -> np.ndarray:
    """(N, 2, V) float32 log-probs of the reference for every pair of ``split``, nats; computed here where missing. A collective.

    ``resumed``: the policy is no longer the base, so under full fine-tuning nothing can be computed any more (UserError).
    """
    config, cells = job.config, cells_to_evaluate(job.objective.cells)
    facts = cache_facts(job, tuned, split, world)
    folder = Path(config.run.root) / "references"
    cache = world.on_main(lambda: ReferenceCache.open(folder, facts, len(split.shards), len(views_of(cells))))
    missing = cache.missing
    if len(missing) and resumed and tuned.wrapped is None:
        raise UserError(
            f"The cached reference {cache.path} is missing or incomplete, and a resumed full fine-tuning no longer has "
            "the base model to compute it with. Put the file back, or start a new run."
        )
    order = GivenOrder(missing, max(world.size, config.optim.global_batch))
    engine.train(False)
    with tuned.scorer.as_reference():
        for first in range(0, order.steps_per_epoch, _STEPS_A_SAVE):
            last = min(order.steps_per_epoch, first + _STEPS_A_SAVE)
            loader = make_loader(split, order, cells, job.family, config, world, first, last)
            scores = score_pairs(engine, progress(loader, "computing the reference"), world)
            attempted = missing[first * order.global_batch : last * order.global_batch]
            cache.put(attempted, scores.index, scores.policy)
            if world.is_main:
                cache.save(facts)
    engine.train()
    return cache.logps


def cache_facts(job: Job, tuned: Tuned, split: Split, world: World) -> dict[str, Any]:
    """Everything the reference's log-probs of ``split`` depend on; the bytes of weights and shards are read for it. A collective.

    UserError for a shard that is not what was indexed.
    """
    config, cells = job.config, job.objective.cells
    weights = sorted(model_files(config.model.base))
    digests = read_now([(file, "blake2b") for file in weights], world)
    shards = read_now([(Path(index.path), "sha256") for index in split.shards.indices], world)
    for index, digest in zip(split.shards.indices, shards, strict=True):
        if digest != index.sha256:
            raise UserError(
                f"The shard {index.path} has other contents than when it was indexed. 'svco data verify {index.path}' makes its "
                "index anew; then start again."
            )
    return {
        "weights": fingerprint(
            {"files": [(file.name, told[:32]) for file, told in zip(weights, digests, strict=True)]}
        ),
        "text": job.family.fingerprint,
        "pixels": job.family.pixel_fingerprint,
        "pictures": DECODING,
        "corruption": Corruptions.of(cells, config.corrupt).fingerprint,
        "views": views_of(cells),
        "dtype": str(tuned.policy.dtype),
        "device": world.device.type,
        "attention": tuned.attention,
        "compile": config.model.compile,
        "pairs": split.shards.digest,
        # Only where it is not: a reference of a base in full keeps its name.
        **({} if config.model.quantise == "none" else {"quantise": config.model.quantise}),
    }


@dataclass
class ReferenceCache:
    """The reference's log-probs of the N pairs of one split, in the order of the shard set."""

    path: Path
    """``<fingerprint>.safetensors``; other weights, text, pixels, dtype or pairs have another name."""
    logps: np.ndarray
    """(N, 2, V) float32, nats; 0 for pairs that could not be scored."""
    done: np.ndarray
    """(N,) bool: the pairs computed so far."""

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any], count: int, views: int = len(VIEWS)) -> ReferenceCache:
        """What ``folder`` holds of ``count`` pairs under ``views`` views (V) for ``facts``, complete or not; empty when it holds
        nothing. UserError if it is damaged."""
        from safetensors import SafetensorError, safe_open

        name = fingerprint(facts)
        path = folder / f"{name}.safetensors"
        if not path.exists():
            return cls(path, np.zeros((count, 2, views), np.float32), np.zeros(count, bool))
        try:
            with safe_open(path, "np") as file:
                logps, done = file.get_tensor("logps"), file.get_tensor("done").astype(bool)
                metadata = file.metadata()
                stored = json.loads(metadata["facts"])
                digest = metadata.get("sha256", "")
        # numpy lacks types that safetensors has
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"The cached reference {path} cannot be read ({error}). Delete it; it is made again."
            ) from None
        if digest != _digest(logps, done):
            raise UserError(
                f"The cached reference {path} is damaged: it is not what was written. Delete it; it is made again."
            )
        if fingerprint(stored) != name or logps.shape != (count, 2, views) or done.shape != (count,):
            raise UserError(
                f"The cached reference {path} is not what its name says: it was made for {stored} and {len(done)} pairs. "
                "Delete it; it is made again."
            )
        return cls(path, logps, done)

    @property
    def missing(self) -> np.ndarray:
        """(M,) indices that are still to be computed."""
        return np.flatnonzero(~self.done)

    def put(self, attempted: np.ndarray, index: np.ndarray, logps: np.ndarray) -> None:
        """Takes in ``logps`` (n, 2, V) of the pairs ``index`` out of those ``attempted``; the rest could not be scored."""
        self.logps[index] = logps
        self.done[attempted] = True

    def save(self, facts: dict[str, Any]) -> None:
        """Writes what is there so far, replacing the file in one move."""
        from safetensors.numpy import save_file

        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Runs of a sweep share the folder, and may be computing the same reference: what another has is kept.
        count, _, views = self.logps.shape
        there = ReferenceCache.open(self.path.parent, facts, count, views)
        theirs = there.done & ~self.done
        self.logps[theirs], self.done[theirs] = there.logps[theirs], True
        tensors = {"logps": self.logps, "done": self.done.astype(np.uint8)}
        with replacing(self.path, sum(array.nbytes for array in tensors.values())) as temporary:
            told = {"facts": json_text(facts, sort_keys=True), "sha256": _digest(self.logps, self.done)}
            save_file(tensors, temporary, told)


def _digest(logps: np.ndarray, done: np.ndarray) -> str:
    return arrays_digest({"logps": logps, "done": done.astype(np.uint8)})


def read_now(files: Sequence[tuple[Path, str]], world: World) -> list[str]:
    """Digests of ``files`` [(file, name of the hash)], read by this very process or another rank, a share each. A collective.

    UserError, on all ranks, for one that cannot be read.
    """

    def read() -> dict[int, str]:
        mine = {}
        for number in shown(world.is_main)(range(world.rank, len(files), world.size), "reading every byte"):
            file, kind = files[number]
            try:
                key = (str(file), kind, *file_mark(file))
                mine[number] = _READ[key] = _READ.get(key) or file_digest(file, kind)
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror}.") from None
        return mine

    found = {number: digest for part in world.gather(world.on_each(read)) for number, digest in part.items()}
    return [found[number] for number in range(len(files))]


_READ: dict[tuple[int | str, ...], str] = {}
"""What this process has read already: three splits of a run have one base."""

"""Where the reference's log-probs come from, and the file that keeps them.

lockstep      LoRA: the policy with its adapters off, layer by layer beside it (the default)
frozen-copy   full fine-tuning: a second, frozen model whose layers run beside the policy's (the default)
cached        log-probs computed once before the first step and read from a file ever after
none          objectives that compare with nothing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..basics.errors import UserError
from ..basics.files import beside
from ..basics.views import VIEWS
from .table import Objective

STRATEGIES = {"lora": ("lockstep", "cached", "none"), "full": ("frozen-copy", "cached", "none")}
"""``model.tune`` -> the reference strategies it can be run with, its default first."""


def choose_reference(wanted: str, tune: str, objective: Objective) -> str:
    """The strategy for ``model.reference`` = ``wanted``; UserError, listing what is allowed, for anything that is not."""
    allowed = [s for s in STRATEGIES[tune] if (s == "none") is (not objective.needs_reference)]
    if wanted == "auto":
        return allowed[0]
    if wanted in allowed:
        return wanted
    rows = "; ".join(f"model.tune={name}: {', '.join(STRATEGIES[name])}" for name in STRATEGIES)
    needs = "needs a reference" if objective.needs_reference else "has no use for a reference: none"
    raise UserError(
        f"model.reference={wanted} cannot be combined with model.tune={tune} and the objective {objective.name}, which "
        f"{needs}. Here it can be: {', '.join(allowed)}. All combinations: {rows} (none only for objectives without one)."
    )


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
                stored = json.loads(file.metadata()["facts"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The cached reference {path} cannot be read ({error}). Delete it; it is made again."
            ) from None
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
        there = ReferenceCache.open(self.path.parent, facts, *self.logps.shape[::2])
        theirs = there.done & ~self.done
        self.logps[theirs], self.done[theirs] = there.logps[theirs], True
        temporary = beside(self.path)
        save_file(
            {"logps": self.logps, "done": self.done.astype(np.uint8)},
            temporary,
            {"facts": json.dumps(facts, sort_keys=True)},
        )
        temporary.replace(self.path)


def fingerprint(facts: dict[str, Any]) -> str:
    """A name for everything a cached reference depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def weights_digest(files: Iterable[Path], memory: Path) -> str:
    """Digest of the contents of a model's files; contents of unchanged files are remembered in ``memory``."""
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    digests = []
    for file in sorted(files):
        facts = file.stat()
        key = f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}"
        if key not in known:
            with file.open("rb") as stream:
                known[key] = hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
        digests.append((file.name, known[key]))
    memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(memory)
    temporary.write_text(json.dumps(known))
    temporary.replace(memory)
    return fingerprint({"files": digests})

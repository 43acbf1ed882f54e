"""The models of a table: a base, and what runs made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...basics.errors import UserError, first_line
from ...basics.shipped import located
from ...data.shards import DEFAULT_CACHE
from ...model.provenance import DIGESTS, fingerprint, subject_digests
from ...record.state import RunState


@dataclass(frozen=True)
class Model:
    """One row's."""

    name: str
    """What the table calls it."""
    base: str
    """Folder or hub id."""
    adapter: Path | None = None
    """Of a run that trained one."""
    run: Path | None = None
    """Its run; None: the base."""

    def digest(self, settings: Any, cache: str) -> str:
        """Names its weights and ``settings``; UserError where the weights cannot be read."""
        memory = Path(cache or DEFAULT_CACHE).expanduser() / DIGESTS
        try:
            weights = subject_digests(located(self.base), str(self.adapter) if self.adapter else None, memory)
        except OSError as error:
            raise UserError(f"The weights of {self.name} cannot be read: {first_line(error)}") from None
        return fingerprint({"weights": weights, "settings": settings})


def models_of(base: str, runs: Sequence[Path], say: Callable[[str], None]) -> list[Model]:
    """The base and what each of ``runs`` ended with; UserError for a run that has not ended with anything yet."""
    found = [Model("BASE", base)]
    for run in runs:
        name = run.resolve().name
        if any(model.name == name for model in found):
            name = str(run)
        found.append(_of_run(base, run, name, say))
    return found


def _of_run(base: str, run: Path, name: str, say: Callable[[str], None]) -> Model:
    if not run.is_dir():
        raise UserError(f"There is no run {run}. --run takes the folder of one (run.root/run.name).")
    state = RunState.read(run)
    trained = f"step {state.step} of {state.steps}, {state.state}" if state else "of unknown state"
    adapter, whole = run / "adapter", run / "model"
    if not (adapter.is_dir() or whole.is_dir()):
        raise UserError(
            f"{run} has neither an adapter nor a model: it has not ended yet ({trained}). See svco status {run}; "
            "a checkpoint of it can be exported and given as --base."
        )
    if state and state.state != "finished":
        say(f"{run} is at {trained}: what is evaluated is what it ended with before")
    if adapter.is_dir():
        return Model(name, base, adapter, run)
    return Model(name, str(whole), None, run)

"""Where a run begins or goes on, decided and compared before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.progress import shown
from ..model.provenance import BASE_WEIGHTS, require_base, unchanged
from ..recipe.config import Config
from ..record.checkpoint import Checkpoints
from ..record.identity import Identity, check_identity
from ..record.manifest import Position, finished, read_identity, read_position
from .folder import RunFolder
from .identity import identity_of
from .job import Job

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on, or that it begins."""

    checkpoints: Checkpoints
    """The run's own, which keep its identity."""
    folder: Path | None
    """The checkpoint to continue from; None: from the beginning."""
    before: Position | None
    """Where that stands."""
    changes: tuple[str, ...]
    """Lines on what ``run.allow_change`` lets differ."""


def resume_point(job: Job, folder: RunFolder, dtype: torch.dtype, world: World) -> ResumePoint:
    """The checkpoint that ``run.resume`` means, whole and of the same run. A collective.

    UserError that names every difference, with both values.
    """
    config = job.config
    identity = world.on_main(lambda: identity_of(job, str(dtype).removeprefix("torch.")))
    checkpoints = Checkpoints(
        folder.path / "checkpoints", config.checkpoint.keep, world, identity, config.checkpoint.keep_best
    )
    found = _wanted(config.run.resume, checkpoints, world)
    if found is None:
        world.on_main(lambda: _check_warm_start(config, identity))
        return ResumePoint(checkpoints, None, None, ())
    before = read_position(found)
    known, fixed = read_identity(found), before.differences(job.position)
    changes = check_identity(known or {}, identity, config.run.allow_change, fixed, found)
    if known is None:
        changes = ["nothing is known of the recipe that made this checkpoint of an earlier version"]
    return ResumePoint(checkpoints, found, before, tuple(changes))


def _check_warm_start(config: Config, identity: Identity) -> None:
    """UserError where ``lora.init_from`` was trained on other weights than this run's base, or is not what was written."""
    if not config.lora.init_from or config.model.tune != "lora":
        return
    found = unchanged(config.lora.init_from)
    if found is not None and BASE_WEIGHTS not in config.run.allow_change:
        what, base = f"The adapter {config.lora.init_from} (lora.init_from)", f"model.base {config.model.base}"
        way_out = f'add "run.allow_change=[{BASE_WEIGHTS}]"'
        require_base(what, found.base_weights, found.base, base, identity[BASE_WEIGHTS], way_out)


def _wanted(resume: str, checkpoints: Checkpoints, world: World) -> Path | None:
    if resume == "none":
        return None
    progress = shown(world.is_main)
    if resume == "auto":
        newest = checkpoints.newest(progress)
        if newest is None and world.broadcast(bool(finished(checkpoints.folder))):
            raise UserError(
                f"Every checkpoint in {checkpoints.folder} is damaged, as said above, so the run cannot go on; it is not begun "
                "again over them. Put a good copy back, or start a new run (another run.name, run.resume=none)."
            )
        return newest
    folder = Path(resume)
    if problem := checkpoints.damage(folder, progress):
        raise UserError(
            f"run.resume is {folder}, which is no valid checkpoint: {problem}. run.resume=auto takes the newest valid one."
        )
    return folder

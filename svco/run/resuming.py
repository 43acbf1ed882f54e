"""Where a run begins or goes on, decided and compared before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.progress import shown
from ..record.checkpoint import Checkpoints, Position, finished, read_identity, read_position
from ..record.identity import check_identity
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
        return ResumePoint(checkpoints, None, None, ())
    before = read_position(found)
    known, fixed = read_identity(found), before.differences(job.position)
    changes = check_identity(known or {}, identity, config.run.allow_change, fixed, found)
    if known is None:
        changes = ["nothing is known of the recipe that made this checkpoint of an earlier version"]
    return ResumePoint(checkpoints, found, before, tuple(changes))


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

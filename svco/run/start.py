"""Where a run starts, for scripts (``svco.train``) and for ``svco train``.

What is heavy is imported late: a run hears requests to stop, and its time limit counts, from before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..basics.dist import world_from_environment
from ..recipe.config import Config
from ..recipe.ds_config import read_ds_config
from ..recipe.limits import check, duration
from ..recipe.read import located_paths
from .launch import Launch
from .stopping import StopRequests


def train(config: Config, ds: str | Path | Mapping[str, Any] | None = None) -> Path:
    """Trains ``config`` from start to the table at its end; the run's folder.

    Without ``ds`` it runs in this process alone, without DeepSpeed. With ``ds``, a DeepSpeed JSON (its path or its content), this
    process is one rank: every process that ``deepspeed``, torchrun or srun started makes the same call, once.

    The folder, ``run.root``/``run.name`` (named after the objective and the time where ``run.name`` is empty), holds
    ``adapter/`` (PEFT) or, after full fine-tuning, ``model/``; ``metrics.jsonl``, one JSON object a logged step with ``step``,
    ``loss`` (mean over pairs) and each term's own; ``heldout.json``, if there are held-out shards; and checkpoints.

    UserError for a mistake in recipe, data or ``ds``. Stopped, after a save, when SIGTERM, SIGUSR1 or ``run.time_limit`` ended
    it: the same call with ``run.name`` and ``run.resume="auto"`` goes on. Call it from the main thread, which hears signals.
    """
    check(config)
    config = located_paths(config)
    if isinstance(ds, (str, Path)):
        launch = Launch(config, config.objective.name, read_ds_config(ds), str(ds))
    else:
        launch = Launch(config, config.objective.name, ds, "the DeepSpeed config")
    folder = start(launch)
    assert folder is not None  # only a dry run has none
    return folder


def start(launch: Launch) -> Path | None:
    """Runs ``launch`` as the rank that the environment says; the run's folder, or None of a dry run."""
    world = world_from_environment()
    with StopRequests(world, duration(launch.config.run.time_limit)) as stops:
        from .. import engine
        from .train import run

        try:
            if launch.ds is not None:
                engine.start(world, launch.config.run.timeout_minutes)
            return run(launch, world, stops)
        finally:
            engine.stop()

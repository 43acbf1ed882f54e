"""A checkpoint of full fine-tuning for another number of ranks: DeepSpeed's universal form of it, made when it is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..dist import World
from ..errors import UserError

_WORKERS = "2"
"""Processes that convert; each holds one rank's part of the state in memory."""


@contextmanager
def fitting(
    folder: Path | None, ds: dict[str, Any] | None, world: World
) -> Iterator[tuple[Path | None, dict[str, Any] | None]]:
    """Yields (checkpoint folder, DeepSpeed config) for this number of ranks to load from: as given where they can. A collective.

    What another number of ranks wrote is converted beside it, which takes three times its bytes of disk meanwhile, and
    removed on leaving: the next save is in the form of these ranks. UserError for what cannot be converted.
    """
    parts = [] if folder is None else sorted((folder / "zero").glob("*optim_states.pt"))
    if folder is None or ds is None or len(parts) in (0, world.size):
        yield folder, ds
        return
    whole = (folder / "zero" / "zero_pp_rank_0_mp_rank_00_model_states.pt").exists()
    if ds["zero_optimization"]["stage"] < 3 or not whole:
        raise UserError(
            f"The checkpoint {folder} was written by {len(parts)} ranks and this run has {world.size}. Full fine-tuning keeps "
            f"DeepSpeed's own partitioned state, which fits another number of ranks under ZeRO-3 only: resume with {len(parts)} "
            "ranks."
        )
    converted = folder.with_name(f"{folder.name}.universal")
    _convert(folder, converted, world)
    yield converted, ds | {"checkpoint": ds.get("checkpoint", {}) | {"load_universal": True}}
    world.barrier()
    if world.is_main:
        shutil.rmtree(converted)


def _convert(folder: Path, converted: Path, world: World) -> None:
    """Rank 0 runs DeepSpeed's converter; the others wait for its mark in the folder, not in a collective, which has a timeout."""
    # A name of its own: a mark of an attempt before this one may still be seen on other nodes.
    mark = converted / world.broadcast(f"converted-{time.time_ns()}")
    if world.is_main:
        shutil.rmtree(converted, ignore_errors=True)
    world.barrier()
    if world.is_main:
        converted.mkdir()
        print(f"converting {folder} for {world.size} ranks", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--input_folder", str(folder / "zero"), "--output_folder", str(converted / "zero")]
        command += ["--num_extract_workers", _WORKERS, "--num_merge_workers", _WORKERS]
        done = subprocess.run(command, capture_output=True, text=True)
        mark.with_suffix(".tmp").write_text(done.stderr[-2000:] if done.returncode else "")
        mark.with_suffix(".tmp").rename(mark)
    while not mark.exists():
        time.sleep(1)
    if problem := mark.read_text().strip():
        raise UserError(
            f"DeepSpeed could not convert the checkpoint {folder} for {world.size} ranks ({problem.splitlines()[-1]}). Resume "
            "with as many ranks as wrote it."
        )

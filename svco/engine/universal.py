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

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import write_whole
from .stored import require_plain

_WORKERS = "2"
"""Processes that convert; each holds one rank's part of the state in memory."""
_ALIVE = ".alive"
"""Suffix of the file that rank 0 touches while it converts."""
_BEAT, _SILENCE = 5.0, 300.0
"""Seconds between two signs of life; without one before the others give up. Network file systems show some a minute late."""


@contextmanager
def fitting(
    folder: Path | None, ds: dict[str, Any] | None, world: World
) -> Iterator[tuple[Path | None, dict[str, Any] | None]]:
    """Yields (checkpoint folder, DeepSpeed config) for this number of ranks to load from: as given where they can. A collective.

    What another number of ranks wrote is converted beside it, which takes three times its bytes of disk meanwhile, and
    removed on leaving: the next save is in the form of these ranks. UserError for what cannot be converted.
    """
    if folder is not None:
        world.on_each(lambda: require_plain(folder / "zero", world.rank, world.size))
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
    try:
        _convert(folder, converted, world)
        yield converted, ds | {"checkpoint": ds.get("checkpoint", {}) | {"load_universal": True}}
        world.barrier()
    finally:
        if world.is_main:
            shutil.rmtree(converted, ignore_errors=True)


def _convert(folder: Path, converted: Path, world: World) -> None:
    """Rank 0 runs DeepSpeed's converter; the others wait for its mark in the folder, not in a collective, which has a timeout."""

    def make_empty() -> None:
        try:
            shutil.rmtree(converted, ignore_errors=True)
            converted.mkdir()
        except OSError as error:
            raise UserError(f"The checkpoint {folder} cannot be converted for {world.size} ranks: {error}.") from None

    # A name of its own: a mark of an attempt before this one may still be seen on other nodes.
    mark = converted / world.broadcast(f"converted-{time.time_ns()}")
    world.on_main(make_empty)
    if world.is_main:
        print(f"converting {folder} for {world.size} ranks", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--input_folder", str(folder / "zero"), "--output_folder", str(converted / "zero")]
        command += ["--num_extract_workers", _WORKERS, "--num_merge_workers", _WORKERS]
        problem = run_marked(command, mark)
    else:
        problem = wait_for(mark)
    world.barrier()  # all have read the mark
    if problem:
        raise UserError(
            f"DeepSpeed could not convert the checkpoint {folder} for {world.size} ranks ({problem}). Resume with as many ranks "
            "as wrote it."
        )


def run_marked(command: list[str], mark: Path, beat: float = _BEAT) -> str:
    """Runs ``command``; what went wrong, "" if nothing, which ``mark`` says too. A sign of life every ``beat`` seconds."""
    alive = mark.with_suffix(_ALIVE)
    try:
        alive.touch()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
            said = None
            while said is None:
                try:
                    _, said = running.communicate(timeout=beat)
                except subprocess.TimeoutExpired:
                    alive.touch()
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        problem = f"exit code {running.returncode}: {last}" if running.returncode else ""
    except OSError as error:
        problem = str(error)
    write_whole(mark, problem)  # where it cannot be, the others will miss the signs of life
    return problem


def wait_for(mark: Path, silence: float = _SILENCE) -> str:
    """What ``mark`` says, once it is there; UserError after ``silence`` seconds without a sign of life."""
    alive = mark.with_suffix(_ALIVE)
    last, since = None, time.monotonic()
    while not mark.exists():
        # Compared with itself only: the clocks of two hosts may differ.
        seen = alive.stat().st_mtime_ns if alive.exists() else None
        if seen != last:
            last, since = seen, time.monotonic()
        if time.monotonic() - since > silence:
            raise UserError(
                f"Rank 0 was converting a checkpoint and has given no sign of life in {mark.parent} for {silence:.0f} seconds. "
                "What it said is above, or in its host's log."
            )
        time.sleep(1)
    return mark.read_text()

"""``svco status``: what the files of a run say about it, in a few lines."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from ..basics.errors import RESUBMIT, UserError
from ..basics.secrets import REMOVED
from .board import METRICS_FILE, last_line
from .manifest import best_of, damage, finished
from .state import STALE_SECONDS, RunState

EXIT_CODES = {"finished": 0, "stopped": RESUBMIT, "running": 3, "failed": 1, "dead": 1}
"""Verdict -> exit code of the command."""
_SLOW_SECONDS, _SLOW_STEPS = 60.0, 5
"""A step is late when it takes longer than this many seconds, and this many usual ones."""
_SLOW_ELSE = 300.0
"""What is not a step is told to be slow after so many seconds: nobody knows how long loading usually takes."""
EXIT_ORDER = (1, RESUBMIT, 3, 0)
"""Of several runs the code that comes first here is the command's."""


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run folders among and directly inside ``folders``; UserError for one that is neither."""
    found = []
    for folder in folders:
        runs = [folder] if RunState.read(folder) else sorted(p for p in folder.glob("*") if RunState.read(p))
        if not runs:
            raise UserError(
                f"There is no run in {folder}: neither it nor a folder in it has a state.json that can be read."
            )
        found += runs
    return found


def look(folder: Path, verify: bool = False) -> tuple[str, int]:
    """(what is to be said about the run in ``folder``, its exit code). ``verify``: read the checkpoint's every byte. UserError
    where there is no run."""
    state = RunState.read(folder)
    if state is None:
        raise UserError(f"The run {folder} has no state.json that can be read.")
    now = time.time()
    verdict = state.verdict(now)
    metrics = last_line(folder / METRICS_FILE)
    lines = [f"{folder}: {verdict}{_why(state, verdict, now)}"]
    pace = state.seconds_a_step
    done = [f"step {state.step} of {state.steps}" if state.steps else "before the first step"]
    if "pairs" in metrics:
        done.append(f"{metrics['pairs']:,} pairs")
    stalled = _stalled(state, now) if verdict == "running" else ""
    if pace:
        done.append(f"{pace:.3g} s a step")
        if verdict == "running" and not stalled:
            done.append(f"about {_span(pace * (state.steps - state.step))} left")
    lines.append("  " + ", ".join(done))
    if stalled:
        lines.append(f"  {stalled}")
    names = [name for name in ("loss", "pairs_per_second") if metrics.get(name) is not None]
    if names:
        shown = [f"{name} {metrics[name]:.4g}" for name in names]
        lines.append(f"  last log, step {metrics['step']}: {', '.join(shown)}")
    checkpoint, kept = _checkpoint(folder, verify)
    if best := best_of(folder / "checkpoints"):
        checkpoint += f"\n  best checkpoint {best[0].name}: {best[1]}"
    lines += [f"  {checkpoint}", f"  next: {_next(folder, state, verdict, kept)}"]
    return "\n".join(lines), EXIT_CODES[verdict]


def _why(state: RunState, verdict: str, now: float) -> str:
    if verdict == "running":
        stopping = f", to stop ({state.reason})" if state.reason else ""
        where = f"process {state.pid} on {state.host}, {state.ranks} ranks, {_span(now - state.started)} so far"
        return f", {state.doing}{stopping}; {where}"
    if verdict == "dead":
        return f": it was {state.doing}, and {state.gone(now)}"
    return f": {state.reason} (exit code {state.exit_code})" if state.reason else ""


def _stalled(state: RunState, now: float) -> str:
    """What is to be said of a run that runs and does not get on, or an empty string."""
    if state.suspended:
        return f"process {state.pid} is suspended: kill -CONT {state.pid} on {state.host} lets it go on{_others(state, now)}"
    if now - state.beat > STALE_SECONDS:
        return (
            f"no sign of life for {_span(now - state.beat)}, though process {state.pid} is there: its disk does not answer, or "
            f"did not take what it wrote{_others(state, now)}"
        )
    age, pace = now - state.moved, state.seconds_a_step
    training = state.doing == "training"
    if not state.moved or age < (max(_SLOW_SECONDS, _SLOW_STEPS * pace) if training else _SLOW_ELSE):
        return ""
    done = "the last step ended" if training else "the last sign of progress was"
    usual = f", and one usually takes {pace:.3g} s" if training and pace else ""
    return f"{done} {_span(age)} ago{usual}{_others(state, now)}"


def _others(state: RunState, now: float) -> str:
    """When ranks that wait for another one give up."""
    if state.ranks == 1 or not state.timeout_minutes or not state.moved:
        return ""
    left = 60 * state.timeout_minutes - (now - state.moved)
    then = f"in about {_span(left)}" if left > 0 else "at any moment"
    return (
        f"; if a rank is stopped or lost, the others give up {then} (run.timeout_minutes = {state.timeout_minutes:g}), and "
        "run.resume=auto goes on from the last checkpoint"
    )


def _checkpoint(folder: Path, verify: bool) -> tuple[str, bool]:
    """(what is to be said about the newest checkpoint, whether there is one to continue from)."""
    found = finished(folder / "checkpoints")
    for checkpoint in reversed(found):
        problem = damage(checkpoint, contents=verify)
        passed = "" if checkpoint == found[-1] else f" ({found[-1].name} is damaged)"
        if problem is None:
            how = "every byte is as written" if verify else "all files are there; --verify reads them"
            return f"checkpoint {checkpoint.name}{passed}: {how}", True
    return (f"checkpoint {found[-1].name}: {problem}" if found else "no checkpoint yet"), False


def _next(folder: Path, state: RunState, verdict: str, kept: bool) -> str:
    if verdict == "running":
        return f"wait, or stop it with a save: kill -USR1 {state.pid} (on {state.host})"
    if verdict == "finished":
        weights = next((folder / name for name in ("adapter", "model") if (folder / name).exists()), folder)
        return f"nothing, its weights are in {weights}"
    mend = "mend what it says, then " if verdict == "failed" else ""
    again = "continue" if kept else "start again"
    command = _resume(folder, state)
    secret = f", with the addresses' credentials in place of {REMOVED}" if REMOVED in command else ""
    return f"{mend}{again} ({state.ranks} ranks before{secret}): {command}"


def _resume(folder: Path, state: RunState) -> str:
    """The command that continues the run: its own, with what names and resumes it."""
    where = [f"run.root={folder.parent}", f"run.name={folder.name}", "run.resume=auto"]
    if not state.command:  # begun by a script, with svco.train
        return f"the same script, its recipe with {shlex.join(where)}"
    program, *arguments = state.command
    kept, skip = [], False
    for word in arguments:
        if skip or word.startswith(("--local_rank", "--resume=", "run.name=", "run.resume=", "run.root=")):
            skip = False
        elif word == "--resume":
            skip = True
        else:
            kept.append(word)
    if program == "svco":
        # It starts the ranks that were asked for itself; others were a launcher's.
        typed = f" {' '.join(kept)} ".replace("--ranks=", "--ranks ")
        starts_them_itself = state.ranks == 1 or f" --ranks {state.ranks} " in typed
        launcher = [] if starts_them_itself else ["deepspeed", "--module"]
    else:
        alone = "none" in kept or "--ds=none" in kept
        launcher = ["python" if alone else "deepspeed"]
    return shlex.join([*launcher, program, *kept, *where])


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

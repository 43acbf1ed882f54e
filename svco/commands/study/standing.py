"""How the tasks of a study stand, told by the files they leave."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ...record.state import RunState
from .cells import Task, unique
from .run import LOG

_NAMES = 6
"""Tasks named of those that have not begun."""


def standing(task: Task) -> str:
    """``finished``, ``never begun``, or where it was stopped, is, or failed."""
    if task.finished:
        return "finished"
    if not (task.folder / LOG).exists():
        return "never begun"
    log = f"see {task.folder / LOG}"
    state = RunState.read(task.run) if task.run else None
    if task.run is None or (task.folder / "train.done").exists() or (state and state.state == "finished"):
        return f"{'trained, ' if task.run else ''}not evaluated yet: stopped, running or failed, {log}"
    if state is None:
        return f"failed before its run began, or about to begin: {log}"
    verdict = state.verdict(time.time())
    at = f"{verdict} at step {state.step} of {state.steps}" if state.steps else f"{verdict} before its first step"
    if verdict == "dead":
        return f"{at}: {state.gone(time.time())}"
    return f"{at}: {state.reason}, {log}" if verdict == "failed" else at


def stage_lines(stage: str, tasks: Iterable[Task], unknown: int = 0) -> tuple[list[str], int]:
    """(lines about a stage's tasks, how many are not finished). ``unknown``: tasks that wait for their trials."""
    how = [(task, standing(task)) for task in unique(tasks)]
    finished = sum(state == "finished" for _, state in how)
    waiting = [task.label for task, state in how if state == "never begun"]
    lines = [f"{stage}: {finished} of {len(how) + unknown} are finished"]
    lines += [f"  {task.label}: {state}" for task, state in how if state not in ("finished", "never begun")]
    if waiting:
        more = f"; and {len(waiting) - _NAMES} more" if len(waiting) > _NAMES else ""
        lines.append(f"  never begun: {len(waiting)}: {'; '.join(waiting[:_NAMES])}{more}")
    if unknown:
        lines.append(f"  waiting for their trials: {unknown}")
    return lines, len(how) + unknown - finished

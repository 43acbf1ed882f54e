"""A study from its data to its page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..board import Progress
from ..errors import RESUBMIT, UserError
from .cells import Task, cell_tasks, trial_tasks
from .run import LOG, Outcome, run_tasks
from .sources import make_sources
from .spec import Study


@dataclass(frozen=True)
class How:
    """What of a study is to be run, and how."""

    jobs: int = 1
    """Tasks at a time."""
    only: tuple[str, ...] = ()
    """Groups; empty: all."""
    stages: tuple[str, ...] = ("data", "trials", "cells")
    """``data``, ``trials``, ``cells``."""
    task: int | None = None
    """Only this task of the stage."""


def conduct(study: Study, how: How) -> int:
    """Runs what is not finished and writes the page. Exit code: 0, 75 when stopped part way, 1 when a task failed."""
    progress = Progress.over(True)
    if "data" in how.stages or how.task is not None:
        make_sources(study, progress)
    if "trials" in how.stages:
        outcome = run_tasks(_chosen(trial_tasks(study), how), how.jobs, progress, "trials")
        if outcome.code:
            return _say(outcome)
    if "cells" not in how.stages:
        return 0
    tasks = cell_tasks(study, how.only)
    outcome = run_tasks(_chosen(tasks, how), how.jobs, progress, "cells")
    code = _say(outcome)
    if how.task is None:
        tell(study, how)
    return code


def _chosen(tasks: Sequence[Task], how: How) -> Sequence[Task]:
    if how.task is None:
        return tasks
    if not 0 <= how.task < len(tasks):
        raise UserError(f"--task {how.task}: the stage has tasks 0 to {len(tasks) - 1}.")
    return tasks[how.task : how.task + 1]


def tell(study: Study, how: How) -> int:
    """Writes tables and figures of what is finished."""
    from .report import collect

    print(f"tables and figures: {collect(study, cell_tasks(study, how.only))}")
    return 0


def show(study: Study, how: How) -> int:
    """Lists the tasks, finished ones marked; cells whose trials are not finished cannot be listed yet."""
    for stage, make in (("trials", trial_tasks), ("cells", lambda s: cell_tasks(s, how.only))):
        if stage not in how.stages:
            continue
        try:
            tasks = make(study)
        except UserError as error:
            cells = sum(1 + len(group.cells) * len(study.seeds) for group in study.groups)
            print(f"{stage}: {cells}, not listed: {error}")
            continue
        print(f"{stage}: {len(tasks)}, of which {sum(task.finished for task in tasks)} are finished")
        for number, task in enumerate(tasks):
            mark = "x" if task.finished else " "
            print(f"  [{mark}] {number:3d} {task.group or 'trial'}: {task.label}")
            for command in task.commands if how.task == number else ():
                print(f"          {' '.join(command.line)}")
    return 0


def _say(outcome: Outcome) -> int:
    for task, tail in outcome.failed:
        print(f"\nfailed: {task.label} ({Path(task.folder) / LOG}):\n{tail}", file=sys.stderr)
    if outcome.code == RESUBMIT:
        print(
            f"stopped: {len(outcome.stopped)} tasks are left; the same command goes on with them.",
            file=sys.stderr,
        )
    return outcome.code

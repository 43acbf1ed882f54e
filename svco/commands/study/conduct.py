"""A study from its data to its page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...basics.errors import RESUBMIT, UserError
from ...basics.files import writing
from ...basics.progress import shown
from ...record.lock import FolderLock
from .cells import Task, cell_count, cell_tasks, known_cells, trial_tasks
from .run import LOG, Children, Outcome, heeding_signals, run_tasks
from .sources import check_sources_apart, make_sources
from .spec import STAGES, Study
from .standing import stage_lines


@dataclass(frozen=True)
class How:
    """What of a study is to be run, and how."""

    jobs: int = 1
    """Tasks at a time; of an array, 0: as many as there is room for."""
    only: tuple[str, ...] = ()
    """Groups; empty: all."""
    stages: tuple[str, ...] = STAGES
    """Those to be run."""
    task: int | None = None
    """Only this task of the stage, and those that train the same run."""


def conduct(study: Study, how: How) -> int:
    """Runs what is not finished and writes the page. Exit code: 0, 75 when stopped part way, 1 when a task failed.

    UserError where another process does that already; jobs of an array, which have a task each, may be many.
    """
    if how.task is not None:
        return _conduct(study, how)
    root = Path(study.root)
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    with FolderLock(root) as lock:
        if not lock.take():
            raise UserError(
                f"Another svco study is at work in {root}. Wait for it, or give this one a --root of its own."
            )
        return _conduct(study, how)


def _conduct(study: Study, how: How) -> int:
    make_sources(study, shown(True))
    check_sources_apart(study)
    with heeding_signals() as children:
        return _run_stages(study, how, children)


def _run_stages(study: Study, how: How, children: Children) -> int:
    progress, trials_code = shown(True), 0
    if "trials" in how.stages:
        outcome = run_tasks(_chosen(trial_tasks(study, how.only), how), how.jobs, progress, "trials", children)
        trials_code = _say(outcome)
        if trials_code == RESUBMIT:
            return trials_code
        if outcome.asked and "cells" in how.stages:  # while the last trials came to their end
            print("stopped: the cells are left; the same command goes on with them.", file=sys.stderr)
            return RESUBMIT
    if "cells" not in how.stages:
        return trials_code
    # A trial that failed keeps back the cells that wait for it, and no others.
    tasks = known_cells(study, how.only) if trials_code else cell_tasks(study, how.only)
    code = _say(run_tasks(_chosen(tasks, how), how.jobs, progress, "cells", children))
    if how.task is None:
        tell(study, how)
    return trials_code or code


def _chosen(tasks: Sequence[Task], how: How) -> Sequence[Task]:
    """The tasks to run: of a job of an array all that share a run, which two jobs must not train side by side."""
    if how.task is None:
        return tasks
    if not 0 <= how.task < len(tasks):
        raise UserError(f"--task {how.task}: the stage has tasks 0 to {len(tasks) - 1}.")
    first = first_of_run(tasks, how.task)
    if first != how.task:
        print(f"task {how.task} shares the run of task {first}, which does both")
        return ()
    return [task for task in tasks if task.folder == tasks[first].folder]


def first_of_run(tasks: Sequence[Task], number: int) -> int:
    """The number of the first task with the folder, and so the run, of task ``number``."""
    return next(n for n, task in enumerate(tasks) if task.folder == tasks[number].folder)


def tell(study: Study, how: How) -> int:
    """Says how what is missing stands, and writes tables and figures of the rest. Exit code: 0, 75 when some is missing."""
    from .report import collect

    everything = known_cells(study)  # the page is the whole study's, whatever was asked for
    known = [task for task in everything if not how.only or task.group in how.only]
    trials, no_trials = stage_lines("trials", trial_tasks(study, how.only))
    cells, no_cells = stage_lines("cells", known, cell_count(study, how.only) - len(known))
    print("\n".join(trials + cells))
    if any(task.finished for task in everything):
        print(f"tables and figures: {collect(study, everything)}")
    return RESUBMIT if no_trials or no_cells else 0


def show(study: Study, how: How) -> int:
    """Lists the tasks, finished ones marked; cells whose trials are not finished cannot be listed yet."""
    for stage, make in (("trials", trial_tasks), ("cells", cell_tasks)):
        if stage not in how.stages:
            continue
        try:
            tasks = make(study, how.only)
        except UserError as error:
            print(f"{stage}: {cell_count(study, how.only)}, not listed: {error}")
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

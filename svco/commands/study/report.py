"""The page of a study: choices, tables, figures, the paper's rows, and what is not finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.markdown import markdown
from .cells import Task, choice, in_words, trial_score, trial_tasks, unique
from .figures import draw
from .published import paper_tables
from .results import Row, rows, write_rows
from .spec import Group, Study
from .tables import group_table, paired_table, row_name

RESULTS, REPORT = "results.jsonl", "report.md"
_NAMES = 20
"""Missing tasks that are named."""


def collect(study: Study, tasks: Sequence[Task]) -> Path:
    """Writes ``results.jsonl``, ``report.md`` and the figures of what is finished into the study's folder; the page."""
    folder = Path(study.root)
    found = list(rows(study, tasks))
    if not found:
        raise UserError(f"Nothing of the study in {folder} is finished yet.")
    write_rows(folder / RESULTS, found)
    pictures = draw(study, found, folder)
    page = folder / REPORT
    write_whole(page, _page(study, tasks, found, pictures))
    return page


def _page(study: Study, tasks: Sequence[Task], found: Sequence[Row], pictures: Sequence[Path]) -> str:
    parts = [f"# Study {study.name}", _summary(study, tasks, found)]
    for group in study.groups:
        if any(row.group == group.name for row in found):
            parts += _group(study, group, found)
    parts += [f"![{picture.stem}]({picture.name})" for picture in pictures]
    if study.trials:
        parts += ["## What was chosen", _choices(study)]
    if study.paper:
        parts += ["## Beside: the paper", paper_tables()]
    return "\n\n".join(parts) + "\n"


def _summary(study: Study, tasks: Sequence[Task], found: Sequence[Row]) -> str:
    tasks = unique(tasks)
    done = sum(task.finished for task in tasks)
    missing = [task.label for task in tasks if not task.finished]
    text = f"{done} of {len(tasks)} tasks are finished; mean ± standard error over seeds, {len(study.seeds)} planned."
    if missing:
        more = f" and {len(missing) - _NAMES} more" if len(missing) > _NAMES else ""
        text += f" Missing: {'; '.join(missing[:_NAMES])}{more}."
    return text


def _group(study: Study, group: Group, found: Sequence[Row]) -> list[str]:
    parts = [f"## {group.title or group.name}", group_table(group, found)]
    if group.compute_of:
        steps = {row_name((r.method, r.data)): r.settings.get("optim.steps") for r in found if r.group == group.name}
        counts = ", ".join(f"{name}: {count}" for name, count in steps.items() if count)
        parts.append(f"As many FLOPs for all as {group.compute_of} takes; steps: {counts}.")
    paired = paired_table(study, group, found)
    return parts + ([f"Paired differences ± s.e. over pairs (s.e. over seeds):\n\n{paired}"] if paired else [])


def _choices(study: Study) -> str:
    """Every trial's validation pair accuracy, the chosen one in bold."""
    trials: dict[tuple[str, str], list[float | None]] = {}
    for task in trial_tasks(study):
        trials.setdefault((task.method, task.data), []).append(trial_score(task))
    lines = [["", *(f"trial {n + 1}" for n in range(len(study.trials)))]]
    for (method, data), scores in trials.items():
        chosen = None if None in scores else choice(study, method, data)
        shown = []
        for trial, score in zip(study.trials_for(method), scores):
            value = "–" if score is None else f"{score:.1%}"
            text = f"{value} ({in_words(trial)})"
            shown.append(f"**{text}**" if trial is chosen else text)
        lines.append([row_name((method, data)), *shown])
    return f"Validation pair accuracy of one seed ({study.trial_seed}) a trial:\n\n{markdown(lines)}"

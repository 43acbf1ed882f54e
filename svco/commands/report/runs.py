"""What a run's folder says, read so that nothing of it can be wrong in a way that ends the report: what cannot be read is told.

A run may be unfinished, resumed from behind what it had logged, damaged, or a folder in which it has only just begun.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ...basics.errors import UserError, first_line
from ...basics.secrets import redacted, redacted_tree
from ...recipe.parse import parse_yaml, plain
from ...record.board import METRICS_FILE
from ...record.manifest import best_of, finished
from ...record.state import STATE, RunState
from ...scores.kept import KEPT, KeptScores

T = TypeVar("T")
RECIPE, VERSIONS, HELDOUT, BAD_STEPS = "recipe.yaml", "versions.json", "heldout.json", "bad_steps.jsonl"
_SIGNS = (STATE, RECIPE, METRICS_FILE)
"""A folder that holds one of these is a run's."""
MOST_RUNS = 12
"""On one page: lines of more cannot be told apart."""
_TAKEN = ("base", "before", "after")
"""What stands beside the runs' names on the page."""
_LONGEST = 2**53
"""Steps beyond it are no steps."""


@dataclass
class Run:
    """One run, as far as its folder tells."""

    folder: Path
    """Where it is."""
    name: str
    """What the page calls it, unlike every other run's."""
    problems: list[str] = field(default_factory=list)
    """What cannot be read, in sentences."""
    state: RunState | None = None
    """``state.json``."""
    verdict: str = ""
    """``running``, ``stopped``, ``finished``, ``failed``, ``dead``; empty where nothing tells."""
    recipe: Mapping[str, str] = field(default_factory=dict)
    """``section.key`` -> its value as text."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """``versions.json``."""
    lines: list[dict[str, float]] = field(default_factory=list)
    """One record a logged step, in order: ``step`` and finite numbers, NaN where one was not finite."""
    bad_steps: list[dict[str, Any]] = field(default_factory=list)
    """Skipped steps with their pairs."""
    heldout: Mapping[str, Any] = field(default_factory=dict)
    """``heldout.json``."""
    scores: KeptScores | None = None
    """``heldout.npz``, of runs that wrote it."""
    checkpoints: str = ""
    """Which checkpoints there are, in words."""

    @property
    def goes_on(self) -> bool:
        return self.verdict == "running"


def find(folders: Iterable[Path]) -> list[Path]:
    """The run folders among and directly inside ``folders``, each once; UserError for one that is neither, and for too many."""
    found: list[Path] = []
    for folder in folders:
        inside = [folder] if _is_run(folder) else sorted(path for path in folder.glob("*") if _is_run(path))
        if not inside:
            what = "is no folder" if not folder.is_dir() else f"has no {', '.join(_SIGNS)}, nor has a folder in it"
            raise UserError(f"There is no run in {folder}: it {what}. Name a run's folder, e.g. runs/NAME.")
        found += [run for run in inside if run.resolve() not in [other.resolve() for other in found]]
    if len(found) > MOST_RUNS:
        raise UserError(f"That are {len(found)} runs; a page takes {MOST_RUNS} at most. Name those to be compared.")
    return found


def _is_run(folder: Path) -> bool:
    try:
        return any((folder / sign).exists() for sign in _SIGNS)
    except OSError:
        return False


def read_all(folders: list[Path]) -> list[Run]:
    """The runs of ``folders``, named by as much of their paths as tells them apart."""
    return [read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    shown = [redacted("".join(letter if letter.isprintable() else "�" for letter in name)) for name in names]
    return [f"{name} (run)" if name in _TAKEN else name for name in shown]


def read(folder: Path, name: str) -> Run:
    """The run in ``folder``."""
    run = Run(folder, name)
    run.state = RunState.read(folder)
    if run.state is not None:
        run.verdict = run.state.verdict(time.time())
    elif (folder / STATE).exists():
        run.problems.append(f"{STATE} cannot be read, so how the run is remains unsaid.")
    run.recipe = _of(run, RECIPE, _recipe, {})
    run.made_with = _of(run, VERSIONS, _object, {})
    run.heldout = _of(run, HELDOUT, _object, {})
    nothing: list[dict[str, Any]] = []
    logged = _of(run, METRICS_FILE, lambda text: _lines(run, text), nothing)
    run.lines = _in_order(map(_numbers, logged))
    run.bad_steps = _of(run, BAD_STEPS, lambda text: _lines(run, text, BAD_STEPS), nothing)
    try:
        run.scores = KeptScores.load(folder) if (folder / KEPT).exists() else None
    except (OSError, ValueError) as error:
        run.problems.append(f"{KEPT} cannot be read ({redacted(first_line(error))}).")
    run.checkpoints = _checkpoints(folder)
    return run


def _of(run: Run, name: str, parse: Callable[[str], T], absent: T) -> T:
    """What ``parse`` makes of the text of file ``name``; ``absent``, with a line in the run's problems, where it cannot."""
    path = run.folder / name
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return absent
    except (OSError, ValueError, TypeError, RecursionError, UserError) as error:
        run.problems.append(f"{name} cannot be read ({redacted(first_line(error))}).")
        return absent


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return redacted_tree(found)


def _recipe(text: str) -> dict[str, str]:
    tree = redacted_tree(plain(parse_yaml(text, RECIPE) or {}))
    if not isinstance(tree, dict):
        raise ValueError("it holds no sections")
    flat: dict[str, str] = {}
    for section, values in tree.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            flat[f"{section}.{key}".rstrip(".")] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """A recipe's value in the words of the page."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _lines(run: Run, text: str, name: str = METRICS_FILE) -> list[dict[str, Any]]:
    """The records of a file of lines. A last line without its end is being written."""
    found, lost = [], 0
    for line in text.splitlines(keepends=True):
        try:
            record = json.loads(line)
            step = record["step"]
            if type(step) is not int or not 0 <= step <= _LONGEST:
                raise ValueError
            found.append(record)
        except (ValueError, TypeError, KeyError, RecursionError):
            lost += line.endswith("\n") and bool(line.strip())
    if lost:
        run.problems.append(f"{name}: {lost} of its lines cannot be read and are left out.")
    return redacted_tree(found)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What of a record is a number; null, which stands for what was not finite, is NaN."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if value is None:
            found[name] = math.nan
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                continue
            found[name] = number if abs(number) < 1e300 else math.nan
    return found


def _in_order(records: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """One record a step, those of training and validation joined. Where a later line is of an earlier step, the run went on from
    there, and what stands between was another future."""
    found: list[dict[str, float]] = []
    for record in records:
        while found and found[-1]["step"] > record["step"]:
            found.pop()
        if found and found[-1]["step"] == record["step"]:
            found[-1] = found[-1] | record
        else:
            found.append(record)
    return found


def _checkpoints(folder: Path) -> str:
    try:
        kept = finished(folder / "checkpoints")
        best = best_of(folder / "checkpoints")
    except OSError:
        return ""
    names = ", ".join(path.name for path in kept[-3:])
    return f"{names}; best {best[0].name}, {best[1]}" if best else names

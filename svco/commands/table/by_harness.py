"""Figures of lmms-eval beside svco's own: one run of it a model and benchmark, each whole once its ``harness.json`` is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ..evaluation.benchmarks.table import BENCHMARKS
from ..harness.running import LOG, RESULT, TASKS, VERSION, Harness, finish, prepare
from ..study.run import Children
from .figures import Evaluated
from .models import Model

FOLDER = "lmms-eval"


@dataclass(frozen=True)
class Beside:
    """What the harness is asked."""

    harness: Harness
    """Its environment, its data, how much at a time."""
    benchmarks: tuple[str, ...]
    """Keys of ``TASKS``."""


def evaluate_by(
    beside: Beside,
    models: Sequence[Model],
    found: Sequence[Evaluated],
    children: Children,
    threads: int,
    say: Callable[[str], None],
) -> None:
    """Runs the harness on what it has not been run on; a failure is said, and keeps back no other."""
    for model, one in zip(models, found, strict=True):
        for name in beside.benchmarks:
            folder = _folder(one, name)
            if children.stopping or (folder / RESULT).exists():
                continue
            line = prepare(beside.harness, model.base, str(model.adapter) if model.adapter else None, [name], folder)
            say(f"evaluating {model.name} on {name} by lmms-eval; log: {folder / LOG}")
            code = children.run(line, folder / LOG, threads)
            if children.stopping:
                return
            try:
                finish(folder, [name], code)
            except UserError as error:
                say(f"failed: {model.name}: {error}")


def rows_by(models: Sequence[Evaluated], beside: Beside | None) -> dict[str, Any]:
    """{"harness", "titles", "rows", "notes", "gaps"} of table.json: benchmark -> figure, by model; empty without the harness."""
    if beside is None:
        return {}
    rows = {model.name: {name: _read(_folder(model, name), name) for name in beside.benchmarks} for model in models}
    return {
        "harness": f"lmms-eval {VERSION}",
        "titles": {name: BENCHMARKS[name].title if name in BENCHMARKS else name for name in beside.benchmarks},
        "rows": rows,
        "notes": {name: TASKS[name].deviates for name in beside.benchmarks if TASKS[name].deviates},
    }


def shown_by(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the page and table.md show it; empty without figures."""
    if not found:
        return {}
    rows = [{"name": name, "cells": [_cell(one) for one in row.values()]} for name, row in found["rows"].items()]
    lines = [f"{found['titles'][name]}: {text.rstrip('.')}." for name, text in found["notes"].items()]
    for name in found["titles"]:
        count = sum(row[name]["empty"] for row in found["rows"].values() if row[name])
        lines += [f"{name}: {count} answers are empty, which count as wrong."] if count else []
    return {"title": f"By {found['harness']}", "titles": list(found["titles"].values()), "rows": rows, "notes": lines}


def _cell(one: Mapping[str, Any] | None) -> dict[str, str]:
    if one is None:
        return {"value": "–", "se": ""}
    scale = 100 if abs(one["score"]) <= 1 else 1  # LLaVA-Bench's is in percent already
    return {"value": f"{scale * one['score']:.1f}", "se": f"± {scale * one['se']:.1f}" if one["se"] is not None else ""}


def _folder(model: Evaluated, benchmark: str) -> Path:
    return model.folder / FOLDER / benchmark


def _read(folder: Path, benchmark: str) -> dict[str, Any] | None:
    """A figure with its source; None where the harness has not come to its end."""
    try:
        told = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / RESULT} cannot be read ({error}). Delete {folder}: the same command makes it anew."
        ) from None
    return {**told["benchmarks"][benchmark], "source": {"by": told["harness"], "evaluation": str(folder)}}

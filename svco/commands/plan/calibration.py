"""Measured efficiencies in place of assumed ones: from ``launchers/gpu_check.py`` or from a run's own log."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ...basics.errors import UserError
from ...recipe.config import LoraConfig
from .architecture import Architecture, architecture
from .flops import flops
from .machine import Machine, Reached
from .planner import make_plan
from .question import Question
from .step_time import compute_seconds
from .workload import Tuning, pair_row

_CHECKED = "llava-hf/llava-1.5-7b-hf"
"""Whose shape ``gpu_check`` times."""
_PROMPT, _RESPONSE = 40, 60
"""Tokens of a prompt and of a response there, beside one image's."""


def calibrated(machine: Machine, file: str, question: Question, ds: tuple[str, Mapping[str, Any]] | None) -> Machine:
    """``machine`` with what ``file`` measured: a ``*_calibration.json``, or a run's folder or metrics.jsonl.

    A run must be of the same recipe; ``ds`` is the config it is planned with.
    """
    path = Path(file)
    path = path / "metrics.jsonl" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--calibration {file} cannot be read: {error}") from None
    if path.suffix == ".jsonl":
        return _of_run(machine, path, text, question, ds)
    try:
        found = json.loads(text)
        return replace(machine, reached=_of_check(machine, found, path.name))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--calibration {file} is not what launchers/gpu_check.py writes ({type(error).__name__}: {error})."
        ) from None


def _of_check(machine: Machine, found: Mapping[str, Any], name: str) -> Reached:
    """The matmul ceiling, and what the product's own step needs beyond it."""
    reached = replace(
        machine.reached,
        matmul=found["matmul_flops_per_second"] / machine.gpu.flops,
        source=f"{name} ({found['device']})",
    )
    machine = replace(machine, reached=reached)
    ratios = []
    for kind in ("lora_step", "full_step"):
        for row, recomputed in (("+ last layer", True), ("+ nothing recomputed", False)):
            step = found.get(kind, {}).get(row) or {}
            if not step.get("seconds"):
                continue
            a = replace(_same_shape(step), layers=step["layers"])
            full = kind == "full_step"
            tuning = Tuning(full, 0 if full else 64, LoraConfig().targets, full, "frozen-copy" if full else "lockstep")
            shown = _PROMPT + a.tower.crop_features
            prefixes, responses = (shown, shown, _PROMPT), (_RESPONSE, _RESPONSE)
            pair = pair_row(itertools.product((0, 1), (0, 1, 2)), prefixes, responses, a.tower.crop_features)
            work = pair.times(step["unique_tokens"] / pair.tokens)
            done = flops(a, tuning, work, a.layers if recomputed else 0, zero3=False)
            ratios.append(step["seconds"] / compute_seconds(a, tuning, machine, work, done))
    if not ratios:
        raise KeyError("no timed step")
    return replace(reached, slower=median(ratios), uncertainty=0.15)


def _same_shape(step: Mapping[str, Any]) -> Architecture:
    a = architecture(_CHECKED)
    if step["hidden"] != a.hidden:
        raise UserError(f"The calibration was made at width {step['hidden']}; a GPU check has {a.hidden}.")
    return a


def _of_run(
    machine: Machine, path: Path, text: str, question: Question, ds: tuple[str, Mapping[str, Any]] | None
) -> Machine:
    """The run's own pairs a second against the plan's for as many ranks."""
    if ds is None:
        raise UserError("--calibration with a run needs the one --ds config that the run had.")
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    speeds = [line["pairs_per_second"] for line in lines if line.get("pairs_per_second")]
    if len(speeds) < 3:
        raise UserError(f"--calibration {path} has the speed of {len(speeds)} steps; at least 3 are needed.")
    try:
        ranks = json.loads((path.parent / "versions.json").read_text())["ranks"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--calibration {path}: the run's versions.json does not say its ranks ({error}).") from None
    seconds = question.config.optim.global_batch / median(speeds[len(speeds) // 3 :])
    planned = make_plan(question, machine.of(ranks), *ds).time
    slower = (seconds - planned.exposed - planned.optimizer) / planned.compute * machine.reached.slower
    if slower <= 0:
        raise UserError(
            f"--calibration {path}: its steps of {seconds:.3g} s are shorter than what the plan says travels."
        )
    source = f"{path.parent.name}, {len(speeds)} steps on {ranks} GPU(s)"
    return replace(machine, reached=replace(machine.reached, slower=slower, uncertainty=0.15, source=source))

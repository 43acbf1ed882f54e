"""The story of a GPU check, and what it writes: a dated page and a calibration file for planning."""

from __future__ import annotations

import datetime
import gc
import pickle
import platform
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from ...basics.dist import World
from ...basics.files import replacing, write_whole
from ...basics.markdown import markdown
from ...basics.strict_json import json_text
from ...model.attention import choose_backend
from ...objectives.table import make_objective
from ...recipe.config import ObjectiveConfig
from .gpu import (
    Check,
    Setting,
    Timed,
    check_attention,
    check_head,
    check_step,
    cut,
    noise_floor,
    seconds,
    time_ladder,
    top_kernels,
)
from .gpu_kept import AGAIN, PAGE, VERDICT
from .ladder import BASELINE, PRODUCT, unique_tokens
from .run import matmul_ceiling
from .shapes import SHAPES, Shape


@dataclass
class Outcome:
    """All that a check found."""

    device: str
    """The GPU's name."""
    checks: list[Check] = field(default_factory=list)
    """Comparisons."""
    ladders: dict[str, list[Timed]] = field(default_factory=dict)
    """Title -> rows."""
    ceiling: float = 0.0
    """FLOP/s of large matrix products."""
    kernels: list[tuple[str, float]] = field(default_factory=list)
    """Where the product's step spends its time."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """Figures for planning."""
    played: list[str] = field(default_factory=list)
    """Parts that ran, or failed."""
    doing: str = ""
    """The part under way."""

    @property
    def passed(self) -> bool:
        """Whether something was compared, and no comparison failed."""
        return bool(self.checks) and all(item.passed for item in self.checks)

    def done(self, part: str) -> None:
        """Notes that ``part`` is over."""
        self.doing = ""
        self.played = list(dict.fromkeys([*self.played, part]))

    def fail(self, part: str, why: str) -> None:
        """Notes that ``part`` is over, and why it found nothing."""
        self.checks.append(Check(f"{part}: {why}", float("inf"), 0.0))
        self.done(part)


@dataclass(frozen=True)
class Here:
    """Where a check runs, and at which shapes."""

    true: Shape
    """Whole."""
    small: Shape
    """At two layers."""
    setting: Setting
    """How ladders are timed."""


Part = Callable[[Outcome, Here], None]


def _attention(outcome: Outcome, here: Here) -> None:
    outcome.checks += check_attention(here.small, here.setting.device, here.setting.dtype)


def _head(outcome: Outcome, here: Here) -> None:
    outcome.checks += check_head(here.small, here.setting.device, here.setting.dtype)


def _step(outcome: Outcome, here: Here) -> None:
    setting = here.setting
    outcome.checks += check_step(here.small, setting.device, setting.dtype, setting.backend)


def _noise(outcome: Outcome, here: Here) -> None:
    setting = here.setting
    outcome.checks += noise_floor(here.small, setting.device, setting.dtype, setting.backend)


def _ceiling(outcome: Outcome, here: Here) -> None:
    outcome.ceiling = matmul_ceiling(World())


PARTS: dict[str, Part] = {
    "attention against float32": _attention,
    "log-prob head": _head,
    "a step against six forwards": _step,
    "noise of Δ": _noise,
    "matmul ceiling": _ceiling,
    "ladder, LoRA": lambda outcome, here: _ladder(outcome, here.true, here.setting, full=False),
    "ladder, full": lambda outcome, here: _ladder(outcome, here.small, here.setting, full=True),
}
"""Comparisons first."""


def go_on(folder: Path, kept: Path, deadline: float) -> int:
    """Plays the parts that no process before has begun; ``kept`` is what those found. An exit code of
    :mod:`~svco.commands.bench.gpu_conduct`. Without CUDA a dry run at the tiny shape, written nowhere."""
    here, name = _here()
    state = kept / "outcome"
    outcome = pickle.loads(state.read_bytes()) if state.exists() else Outcome(name)
    if outcome.doing:  # the process that did it is no more
        outcome.fail(outcome.doing, "its process ended")
    for part, play in PARTS.items():
        if part in outcome.played or time.time() > deadline:
            continue
        outcome.doing = part
        _write(outcome, folder, kept)
        print(f"checking: {part}", flush=True)
        try:
            play(outcome, here)
        except Exception as error:  # one part's failure must not cost what the others found
            traceback.print_exc()
            outcome.fail(part, type(error).__name__)
        outcome.done(part)
        _write(outcome, folder, kept)
        if _spoilt(here.setting.device):
            return AGAIN
    return 0 if outcome.passed else 1


def _here() -> tuple[Here, str]:
    """(where this runs, the device's name)."""
    cuda = torch.cuda.is_available()
    if not cuda:
        print(
            "No CUDA GPU here: a dry run of the plan at the tiny shape on the CPU, in float32; its figures mean nothing."
        )
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    dtype = torch.bfloat16 if cuda else torch.float32
    true = SHAPES["llava15-7b"] if cuda else SHAPES["tiny"]
    backend, why = choose_backend("auto", device, dtype)
    print(f"attention: {backend} ({why})", flush=True)
    pairs, repetitions = (4, 3) if cuda else (1, 1)
    setting = Setting(device, dtype, backend, pairs, repetitions)
    name = torch.cuda.get_device_name(device) if cuda else "CPU (dry run)"
    return Here(true, cut(true, 2) if cuda else true, setting), name


def _spoilt(device: torch.device) -> bool:
    """Whether CUDA answers no more in this process; what a part left in the GPU's memory goes."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        gc.collect()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def _write(outcome: Outcome, folder: Path, kept: Path) -> None:
    """What was found so far: for a process that goes on, and for those who read it."""
    with replacing(kept / "outcome") as whole:  # the process may be killed at any instant
        whole.write_bytes(pickle.dumps(outcome))
    write_whole(kept / VERDICT, "0" if outcome.passed else "1")
    text = page(outcome)
    if torch.cuda.is_available():
        stem = f"{datetime.date.today()}_{re.sub(r'[^a-z0-9]+', '-', outcome.device.lower()).strip('-')}"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{stem}.md", text + "\n")
        write_whole(folder / f"{stem}_calibration.json", json_text(outcome.calibration, indent=1))
        text += f"\n\nwritten: {folder / stem}.md and {stem}_calibration.json"
    write_whole(kept / PAGE, text)


def _ladder(outcome: Outcome, shape: Shape, setting: Setting, full: bool) -> None:
    rows, product = time_ladder(shape, setting, full)
    title = f"{'full fine-tuning' if full else 'LoRA'}, {shape.cut or 'all layers'}"
    outcome.ladders[f"{title}, {setting.pairs} pair(s), forward and backward"] = rows
    losses = [row.loss for row in rows if row.seconds]
    spread = (max(losses) - min(losses)) / abs(min(losses)) if losses else float("inf")
    outcome.checks.append(
        Check(f"ladder, {title}: all rows' losses", spread, 5e-2 if setting.dtype != torch.float32 else 1e-5)
    )
    if not full:
        outcome.kernels = top_kernels(product, setting.device)
    by_name = {row.row: row for row in rows}
    tokens = unique_tokens(shape, make_objective(ObjectiveConfig()))[0] * setting.pairs
    outcome.calibration |= {
        "device": outcome.device,
        "attention": setting.backend,
        "matmul_flops_per_second": outcome.ceiling,
        f"{'full' if full else 'lora'}_step": {
            name: {
                "layers": shape.layers,
                "hidden": shape.hidden,
                "unique_tokens": tokens,
                "seconds": seconds(by_name[name]),
                "peak_bytes": by_name[name].peak,
            }
            for name in (PRODUCT, "+ nothing recomputed", "+ cached reference", "+ cached and nothing recomputed")
        },
    }


def _row(row: Timed, base: float | None, ceiling: float) -> list[str]:
    took = seconds(row)
    if took is None:
        return [row.row, row.failed, "", "", "", ""]
    ratio = f"{took / base:.3f}" if base else "–"
    share = f"{row.floor_flops / took / ceiling:.0%}" if ceiling else "–"
    return [row.row, f"{took:.3g}", ratio, share, f"{row.peak / 1e9:.1f}", f"{row.loss:.4f}"]


_LADDER_HEAD = ["", "median, s", "× baseline", "MFU on unique tokens", "peak memory, GB", "loss"]


def page(outcome: Outcome) -> str:
    """The result as markdown."""
    lines = [
        f"# GPU check on {outcome.device}, {datetime.date.today()}",
        "",
        f"`python launchers/gpu_check.py`, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, random weights.",
        "",
        markdown([["comparison", "difference", "tolerance", "verdict"], *(check.row() for check in outcome.checks)]),
    ]
    for title, rows in outcome.ladders.items():
        base = next(seconds(row) for row in rows if row.row == BASELINE)
        lines += [
            "",
            f"## {title}",
            "",
            markdown([_LADDER_HEAD, *(_row(row, base, outcome.ceiling) for row in rows)]),
        ]
    for kind, steps in outcome.calibration.items():
        if isinstance(steps, dict):
            step = steps[PRODUCT]
            if step["seconds"]:
                lines += ["", f"{kind}: {step['unique_tokens'] / step['seconds']:,.0f} unique tokens/s ({PRODUCT})."]
    if outcome.ceiling:
        lines += [
            "",
            f"Matmul ceiling, measured here: {outcome.ceiling / 1e12:,.3g} TFLOP/s. MFU on unique tokens: the work of every "
            "distinct token once through the layers, forward and backward for the policy and forward for the reference, over "
            "the time and that ceiling; recomputation, attention, head and vision earn nothing.",
        ]
    if outcome.kernels:
        lines += ["", "Where the product's LoRA step spends its time:", ""]
        lines += [f"- {share:.1%} `{name}`" for name, share in outcome.kernels]
    if left := [part for part in PARTS if part not in outcome.played]:
        lines += ["", f"Left out for lack of time: {', '.join(left)}."]
    return "\n".join(lines)

"""The story of a GPU check, and what it writes: a dated page and a calibration file for planning."""

from __future__ import annotations

import datetime
import gc
import platform
import re
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...basics.dist import World
from ...basics.files import write_whole
from ...basics.markdown import markdown
from ...basics.progress import shown
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
    skipped: list[str] = field(default_factory=list)
    """What the time was too short for."""


def run(folder: Path, minutes: float) -> int:
    """The whole check; the exit code: 1 when a comparison failed. Without CUDA a dry run at the tiny shape, written nowhere."""
    cuda = torch.cuda.is_available()
    if not cuda:
        print(
            "No CUDA GPU here: a dry run of the plan at the tiny shape on the CPU, in float32; its figures mean nothing."
        )
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    outcome = check(device, minutes)
    text = page(outcome)
    print(text)
    if cuda:
        stem = f"{datetime.date.today()}_{re.sub(r'[^a-z0-9]+', '-', outcome.device.lower()).strip('-')}"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{stem}.md", text + "\n")
        write_whole(folder / f"{stem}_calibration.json", json_text(outcome.calibration, indent=1))
        print(f"\nwritten: {folder / stem}.md and {stem}_calibration.json")
    return 0 if all(item.passed for item in outcome.checks) else 1


def check(device: torch.device, minutes: float) -> Outcome:
    """Runs everything that fits ``minutes``, comparisons first."""
    cuda, began = device.type == "cuda", time.monotonic()
    dtype = torch.bfloat16 if cuda else torch.float32
    true = SHAPES["llava15-7b"] if cuda else SHAPES["tiny"]
    small = cut(true, 2) if cuda else true
    outcome = Outcome(torch.cuda.get_device_name(device) if cuda else "CPU (dry run)")
    backend, why = choose_backend("auto", device, dtype)
    print(f"attention: {backend} ({why})", flush=True)
    pairs, repetitions = (4, 3) if cuda else (1, 1)
    setting = Setting(device, dtype, backend, pairs, repetitions)
    parts = {
        "attention against float32": lambda: outcome.checks.extend(check_attention(small, device, dtype)),
        "log-prob head": lambda: outcome.checks.extend(check_head(small, device, dtype)),
        "a step against six forwards": lambda: outcome.checks.extend(check_step(small, device, dtype, backend)),
        "noise of Δ": lambda: outcome.checks.extend(noise_floor(small, device, dtype, backend)),
        "matmul ceiling": lambda: setattr(outcome, "ceiling", matmul_ceiling(World())),
        "ladder, LoRA": lambda: _ladder(outcome, true, setting, full=False),
        "ladder, full": lambda: _ladder(outcome, small, setting, full=True),
    }
    for name in shown(True)(list(parts), "checking"):
        if time.monotonic() - began > 60 * minutes * 0.85:
            outcome.skipped.append(name)
            continue
        try:
            parts[name]()
        except Exception as error:  # one part's failure must not cost what the others found
            traceback.print_exc()
            outcome.checks.append(Check(f"{name}: {type(error).__name__}", float("inf"), 0.0))
        if cuda:
            gc.collect()
            torch.cuda.empty_cache()
    return outcome


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
        f"`python launchers/gpu_check.py`, torch {torch.__version__}, Python {platform.python_version()}, random weights.",
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
    if outcome.skipped:
        lines += ["", f"Left out for lack of time: {', '.join(outcome.skipped)}."]
    return "\n".join(lines)

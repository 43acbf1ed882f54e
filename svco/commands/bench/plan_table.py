"""The check of the plan as a whole, and its results as a table."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.markdown import markdown
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from .plan_check import BOUNDS, CASES, Compared, check
from .plan_ranks import SHARDED, check_sharded


def check_all(ds: dict[str, Any] | None, world: World, progress: Progress) -> Iterator[Compared]:
    """Every case that is counted in one process, or, where ``ds`` is given, every case under ZeRO-3: a collective then."""
    for case in progress(CASES if ds is None else SHARDED, "counting"):
        yield from check(case) if ds is None else check_sharded(case, ds, world)
        gc.collect()


def table(rows: Sequence[Compared]) -> str:
    """Markdown."""
    head = ["case", "quantity", "planned", "counted", "off by"]
    return "\n".join([markdown([head, *(row.cells() for row in rows)], texts=2), "", summary(rows)])


def summary(rows: Sequence[Compared]) -> str:
    """The largest deviation of each kind."""
    kinds = [kind for kind in BOUNDS if any(row.kind == kind for row in rows)]
    worst = {kind: max(abs(row.off) for row in rows if row.kind == kind) for kind in kinds}
    said = ", ".join(f"{kind} {off:.2%} (allowed: {BOUNDS[kind]:.0%})" for kind, off in worst.items())
    return f"Largest deviations: {said}."


def run(stem: str | None, ds: dict[str, Any] | None, world: World, progress: Any) -> None:
    """The whole check, on every rank; rank 0 prints and writes. UserError when a prediction is too far off."""
    rows = []
    for row in check_all(ds, world, progress):
        rows.append(row)
        if world.is_main:
            print(row, flush=True)
    if not world.is_main:
        return
    print(summary(rows))
    if stem:
        Path(stem).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(f"{stem}.md"), table(rows) + "\n")
        write_whole(Path(f"{stem}.json"), json_text([asdict(row) | {"off": row.off} for row in rows], indent=1))
    if far := [row for row in rows if not row.passed]:
        raise UserError(f"{len(far)} of {len(rows)} figures of the plan are too far off, e.g. {far[0]}")

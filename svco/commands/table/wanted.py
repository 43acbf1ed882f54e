"""What a table is asked to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..judge.command import Wanted as Judging
from .by_harness import Beside


@dataclass(frozen=True)
class Wanted:
    """What the table is of."""

    base: str
    """Folder or hub id."""
    runs: tuple[Path, ...]
    """Folders of runs."""
    where: Path
    """The folder of the benchmarks' folders, as messages name it."""
    benchmarks: Mapping[str, Path]
    """Name -> folder of its official files."""
    out: Path
    """Folder of the table."""
    judge: Judging | None = None
    """Who judges, and how; its folders are filled in here. None: nobody does."""
    paper: str = "auto"
    """Whose rows of the paper stand beside: ``auto``, ``llava-1.5``, ``interleave``, ``both`` or ``none``."""
    ranks: int | None = None
    """Processes of an evaluation; None: one for each GPU."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``svco eval`` that decide figures."""
    effort: tuple[str, ...] = ()
    """Words for ``svco eval`` that decide none."""
    beside: Beside | None = None
    """What lmms-eval is asked as well; None: nothing."""
    cache: str = ""
    """For digests of weights; empty: ``~/.cache/svco``."""

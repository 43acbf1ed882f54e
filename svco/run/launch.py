"""What is run, and how it was started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..recipe.config import Config


@dataclass(frozen=True)
class Launch:
    """A recipe and how it was started."""

    config: Config
    """The resolved recipe."""
    recipe: str
    """Begins the name of the run's folder where ``run.name`` is empty."""
    ds: Mapping[str, Any] | None
    """The DeepSpeed JSON as read, or None to run one process without DeepSpeed."""
    ds_path: str
    """Where it was read, for messages."""
    dry_run: bool = False
    """Resolve and print only."""
    command: tuple[str, ...] = ()
    """The command line of a rank, for those who ask how the run is to be continued; empty: a script's own."""

"""What an export knows of a run and of its base: what may be told in public."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from ..recipe.config import Config
from ..recipe.read import load_recipe
from ..record.manifest import MANIFEST, Position, finished, read_position

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Base:
    """A base model as others know it."""

    name: str
    """Its hub id, or the name it is called by."""
    on_hub: bool
    """``name`` is a hub id."""


def public_base(base: str, given: str | None = None) -> Base:
    """The name under which ``base``, a folder or hub id, may be published; ``given`` is the user's own word for it."""
    if given is not None:
        if not _HUB_ID.fullmatch(given):
            raise UserError(f"--base-name is {given!r}; it takes a hub id (organisation/name) or a plain name.")
        return Base(given, "/" in given)
    # The hub's cache: .../models--organisation--name/snapshots/<commit>
    for part in Path(base).parts:
        if part.startswith("models--"):
            return Base(part.removeprefix("models--").replace("--", "/"), True)
    if Path(base).is_absolute() or Path(base).exists() or not _HUB_ID.fullmatch(base):
        return Base(Path(base).resolve().name, False)
    return Base(base, True)


@dataclass(frozen=True)
class RunFacts:
    """What a run's folder says about it."""

    name: str
    """The run's name."""
    config: Config
    """Its recipe."""
    dtype: str
    """The dtype it computed in."""
    base: Base
    """Its base model."""
    about: Mapping[str, Any]
    """``versions.json``."""
    position: Position | None
    """How far the exported weights were trained; None when no checkpoint is left to say so."""
    heldout: Mapping[str, Any] | None
    """``heldout.json``, of weights trained to the run's end."""


def read_facts(run: Path, position: Position | None) -> RunFacts:
    """The facts of run folder ``run``, whose weights at ``position`` (None: at its end) are exported."""
    if position is None and (kept := finished(run / "checkpoints")) and (kept[-1] / MANIFEST).is_file():
        position = read_position(kept[-1])
    config = load_recipe(run / "recipe.yaml")
    about = _read_json(run / "versions.json") or {}
    if "dtype" not in about or "base" not in about:
        raise UserError(f"{run / 'versions.json'} does not say which dtype and base the run had: no svco run wrote it.")
    at_end = position is None or position.step == position.steps
    heldout = _read_json(run / "heldout.json") if at_end else None
    return RunFacts(run.name, config, about["dtype"], Base(**about["base"]), about, position, heldout)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}).") from None

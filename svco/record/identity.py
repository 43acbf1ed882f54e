"""What a run is: everything that decides its numbers, kept in each of its checkpoints and compared before one is continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..basics.errors import UserError

Identity = Mapping[str, Any]
"""Fact (a recipe's key, or a few words) -> its value, as JSON keeps it."""


def differences(before: Identity, now: Identity) -> dict[str, tuple[Any, Any]]:
    """Fact -> (value before, value now) of each that differs; what one side does not know of is no difference."""
    return {name: (before[name], now[name]) for name in before if name in now and before[name] != now[name]}


def check_identity(
    before: Identity, now: Identity, allowed: Sequence[str], fixed: Mapping[str, tuple[Any, Any]], checkpoint: Path
) -> list[str]:
    """Lines about differences that ``allowed`` (``run.allow_change``) names.

    UserError about all others, about those of ``fixed``, which nothing allows, and for a name that is no fact of a run.
    """
    if unknown := [name for name in allowed if name not in now]:
        raise UserError(
            f"run.allow_change names {unknown[0]}, which is not among what may be changed so: {', '.join(now)}."
        )
    found = differences(before, now)
    refused = [name for name in found if name not in allowed]
    lines = {
        name: f"{name} was {_shown(was)} and is {_shown(is_)} now" for name, (was, is_) in {**fixed, **found}.items()
    }
    if refused or fixed:
        change = (
            f"to change the run from here on, run.allow_change={_as_key(refused)}; or " if refused and not fixed else ""
        )
        raise UserError(
            f"Cannot resume from {checkpoint}: {'; '.join(lines[name] for name in (*fixed, *refused))}. It would not be the same "
            f"run. Set that back; or {change}start a new run (another run.name, run.resume=none), with lora.init_from for a warm "
            "start."
        )
    return [lines[name] for name in found]


def _as_key(names: Sequence[str]) -> str:
    listed = ",".join(names)
    return listed if len(names) == 1 and " " not in listed else f"'[{listed}]'"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

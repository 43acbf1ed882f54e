"""All benchmarks, and which of them a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ....basics.errors import UserError, nearest
from ....basics.shipped import typed
from . import NAMES
from .protocol import Benchmark

BENCHMARKS: dict[str, Benchmark] = {name: import_module(f".{name}", __package__).BENCHMARK for name in NAMES}
"""Name -> benchmark, in the order of tables."""


def known(name: str) -> str:
    """``name`` as the table has it, ``-`` for ``_`` and letters of any case; UserError for no benchmark."""
    found = name.strip().lower().replace("-", "_")
    if found not in BENCHMARKS:
        raise UserError(f"There is no benchmark {name!r}.{nearest(found, BENCHMARKS)}")
    return found


def held_by(folder: Path) -> dict[str, Path]:
    """{benchmark: its folder} of the folders in ``folder`` that are called like one; UserError if there is none."""
    try:
        names = {path.name.lower().replace("-", "_"): path for path in sorted(folder.iterdir()) if path.is_dir()}
    except OSError as error:
        raise UserError(f"--benchmarks {folder} cannot be read: {error.strerror}.") from None
    found = {name: names[name] for name in BENCHMARKS if name in names}
    if not found:
        raise UserError(f"--benchmarks {folder} holds no folder called {', '.join(BENCHMARKS)}.")
    return found


def chosen_benchmarks(within: Path | None, given: Sequence[str]) -> dict[str, Path]:
    """{name: folder} of what ``--benchmarks DIR``, and over it each ``--benchmark NAME=DIR`` of ``given``, ask for."""
    found = {} if within is None else held_by(within)
    for words in given:
        name, equals, folder = words.partition("=")
        if not (equals and folder.strip()):
            raise UserError(f"--benchmark is {words!r}; it must be NAME=DIR, e.g. --benchmark mmvp=benchmarks/mmvp.")
        found[known(name)] = typed(folder)
    return {name: found[name] for name in BENCHMARKS if name in found}

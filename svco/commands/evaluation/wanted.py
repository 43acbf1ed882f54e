"""What an evaluation is to do, and what of it is done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...basics.errors import UserError, first_line
from ...basics.shipped import located
from ...data.shards import DEFAULT_CACHE
from ...model.provenance import DIGESTS, files_digest, fingerprint, subject_digests
from ...model.quantised import resolve_quantise
from ...recipe.config import CorruptConfig, Quantise
from . import RESULT
from .scoring import Effort

_TEXTS = (".csv", ".json", ".jsonl", ".parquet", ".arrow", ".tsv", ".txt", ".zip")
"""Endings of a release's files that hold its questions."""


@dataclass(frozen=True)
class Wanted:
    """What is to be evaluated, and how."""

    base: str
    """Folder or hub id."""
    adapter: str | None
    """PEFT folder, or None."""
    out: Path
    """Folder of the results."""
    sets: dict[str, tuple[str, ...]]
    """Name -> shard specs."""
    pairs: int = 0
    """Pairs of a set at most; 0: all."""
    generate: int = 0
    """Pairs of a set whose questions are answered."""
    generate_on: tuple[str, ...] = ()
    """The sets whose questions are answered; empty: every set."""
    max_new_tokens: int | None = None
    """Tokens of an answer; None: 64, of one in free words 1,024."""
    against: tuple[Path, ...] = ()
    """Folders of other evaluations."""
    benchmarks: dict[str, Path] = field(default_factory=dict)
    """Name -> folder of its official files."""
    corrupt: CorruptConfig | None = None
    """How images of the fourth view are corrupted; None: three views."""
    other_base: bool = False
    """The adapter may have been trained on another base."""
    allow_overlap: str = "none"
    """What a set may share with the pairs that the model was trained on (``data.allow_overlap``)."""
    apart: bool = False
    """Whether every set and benchmark becomes an evaluation of its own in ``out``; finished ones are kept."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ``load_subject``."""
    effort: Effort = Effort()  # noqa: RUF009 frozen
    """How much at a time."""

    identity: str = ""
    """What decides the results of an evaluation that stands apart; empty: not recorded."""

    @property
    def cache(self) -> Path:
        """Folder of indices, lengths and digests."""
        return Path(self.effort.cache or DEFAULT_CACHE).expanduser()

    @property
    def held(self) -> Quantise:
        """How the base's matrices are held."""
        return resolve_quantise(self.options.get("quantise", "auto"), self.adapter)

    @property
    def paper_compat(self) -> bool:
        """Whether answers are read as the S-VCO authors read them."""
        return self.options.get("paper_compat", False)


def to_do(wanted: Wanted) -> list[Wanted]:
    """What is to be evaluated now, its folders made: ``wanted`` itself, or where its parts stand apart those that are not there.
    UserError for a folder that holds another evaluation."""
    if not wanted.apart:
        _make_room(wanted)
        return [wanted]
    parts = [
        replace(wanted, out=wanted.out / name, sets={name: specs}, benchmarks={}) for name, specs in wanted.sets.items()
    ]
    parts += [
        replace(wanted, out=wanted.out / name, sets={}, benchmarks={name: folder})
        for name, folder in wanted.benchmarks.items()
    ]
    try:
        subject = fingerprint(
            subject_digests(located(wanted.base), wanted.adapter, wanted.cache / DIGESTS, wanted.held)
        )
    except OSError as error:
        raise UserError(f"The base {wanted.base} or its adapter cannot be read: {first_line(error)}") from None
    parts = [replace(part, identity=_identity(part, subject)) for part in parts]
    left = [part for part in parts if not _is_done(part)]
    for part in left:
        _make_room(part)
    return left


def _identity(part: Wanted, subject: str) -> str:
    """Names the model, the questions and whatever else decides the results of ``part``."""
    files = {name: files_digest(_questions(folder), part.cache / DIGESTS) for name, folder in part.benchmarks.items()}
    told: dict[str, Any] = {
        "subject": subject,
        "benchmarks": files,
        "sets": {name: list(specs) for name, specs in part.sets.items()},
    }
    told |= {name: getattr(part, name) for name in ("pairs", "generate", "max_new_tokens")}
    told |= {"corrupt": part.corrupt.kind if part.corrupt else None, "options": part.options}
    return fingerprint(told)


def _questions(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.suffix in _TEXTS and path.is_file())


def _is_done(part: Wanted) -> bool:
    """Whether ``part`` is evaluated; UserError where something else is in its folder."""
    try:
        found = json.loads((part.out / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{part.out / RESULT} cannot be read ({error}). Delete that folder.") from None
    if found.get("identity") != part.identity:
        raise UserError(
            f"{part.out} holds an evaluation of another model, of other questions, or with other settings. Give another --out, "
            "or delete that folder."
        )
    return True


def _make_room(wanted: Wanted) -> None:
    """The folder of the results; UserError when it holds an evaluation already."""
    if (wanted.out / RESULT).exists():
        raise UserError(
            f"{wanted.out} holds an evaluation already ({RESULT}). Give another --out, or delete that folder."
        )
    try:
        wanted.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder --out {wanted.out} cannot be made: {error.strerror}.") from None

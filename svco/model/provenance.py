"""What weights were made from: a small file beside every adapter and model that svco writes, compared where they are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from ..basics.files import file_digest, file_mark, write_whole
from ..basics.sealed import sealed, unsealed
from ..basics.secrets import redacted_tree
from ..basics.strict_json import json_text, parse_json

IDENTITY = "identity.json"
BASE_WEIGHTS = "the base model's weights"
"""What the digest of the base is called among the facts of a run."""
DIGESTS = "digests.json"
"""In a cache folder: the digests of files that have not changed since."""
_WEIGHTS = (".safetensors", ".bin")
_AT_ONCE = 8
"""Files read at a time."""


@dataclass(frozen=True)
class Provenance:
    """What the weights of a folder were made from."""

    made: str
    """``adapter``, ``merged`` or ``full``."""
    base: str
    """The base model's public name."""
    base_weights: str
    """Digest of the base's weights and config; empty: not known."""
    run: Mapping[str, Any] | None = None
    """The facts that decided the run's numbers (:mod:`svco.run.identity`); None where no run is known."""
    files: Mapping[str, str] | None = None
    """File of the folder -> digest of its contents."""

    def write(self, folder: Path) -> None:
        """Writes it beside the weights in ``folder``, which must all be there."""
        files = {file.name: contents for file, contents in _digests(_decisive(folder)).items()}
        told = asdict(self) | {"version": 1, "files": files}
        write_whole(folder / IDENTITY, json_text(redacted_tree(told), indent=1, sort_keys=True) + "\n")


def read_provenance(folder: Path | str) -> Provenance | None:
    """What lies beside the weights in ``folder``; None where nothing does, as in folders that others made. UserError if it
    cannot be read."""
    file = Path(folder) / IDENTITY
    try:
        told = parse_json(file.read_text(encoding="utf-8"))
        found = Provenance(told["made"], told["base"], told["base_weights"], told["run"], told["files"])
        if (
            told["version"] != 1
            or not isinstance(found.base_weights, str)
            or not isinstance(found.run, (dict, type(None)))
        ):
            raise ValueError("it is of another version")
        if not all(isinstance(text, str) and Path(name).name == name for name, text in told["files"].items()):
            raise ValueError("its files are not of this folder")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}). {_remedy(file)}") from None
    return found


def unchanged(folder: Path | str, memory: Path | None = None) -> Provenance | None:
    """:func:`read_provenance`, its files compared with what was written; contents of unchanged files are remembered in
    ``memory``. UserError for one that is missing or another."""
    found = read_provenance(folder)
    if found is None:
        return None
    there = {file.name: file for file in _decisive(Path(folder))}
    files = found.files or {}
    if missing := sorted(files.keys() - there.keys()):
        raise UserError(f"{folder} lacks {missing[0]}, which was written there. {_remedy(Path(folder) / IDENTITY)}")
    digests = _digests((there[name] for name in files), memory)
    if other := [file for file, digest in digests.items() if files[file.name] != digest]:
        raise UserError(
            f"{other[0]} is not what was written there: it is damaged or was changed. {_remedy(Path(folder) / IDENTITY)}"
        )
    return found


def _remedy(file: Path) -> str:
    return f"Copy the folder again from its source; if the change is meant, delete {file}, which says what it was made from."


def require_base(what: str, known: str | None, name: str, base: str, now: str, way_out: str) -> None:
    """UserError unless ``what`` was trained on the weights with the digest ``now``, those of ``base``. ``known``: what its
    identity says, with the base's ``name``; None or empty: nothing. ``way_out``: what to write if another base is meant."""
    if known and known != now:
        raise UserError(
            f"{what} was trained on {name or 'a base'} with the weights {known}, and {base} has the weights {now}: it would "
            f"be another model. Give the base that it was trained on; if this one is meant, {way_out}."
        )


def check_subject(base: str, adapter: str | None, cache: Path, other_base: bool = False) -> None:
    """UserError where the files of ``adapter`` or of ``base``, written by svco, are not what was written, and, unless
    ``other_base``, where ``base`` is not what the adapter was trained on. ``cache``: a folder that remembers digests."""
    memory = cache / DIGESTS
    if Path(base).is_dir():
        unchanged(base, memory)
    found = unchanged(adapter, memory) if adapter is not None else None
    if found is not None and found.base_weights and not other_base:
        now = weights_digest(base, memory)
        require_base(
            f"The adapter {adapter}", found.base_weights, found.base, f"the base {base}", now, "add --other-base"
        )


def model_files(base: str) -> list[Path]:
    """The config and weight files of a base model: a folder here, or its copy in the hub's cache."""
    from transformers.utils import cached_file

    folder = Path(base)
    if not folder.is_dir():
        config: Any = cached_file(base, "config.json")  # raises where there is none
        folder = Path(config).parent
    return [file for file in folder.iterdir() if file.suffix in _WEIGHTS or file.name == "config.json"]


def weights_digest(base: str, memory: Path) -> str:
    """Digest of the contents of a base's weights and config. They are read once: those of files that have
    not changed, as far as their times and a few of their places show, are remembered in ``memory``."""
    return files_digest(model_files(base), memory)


def files_digest(files: Iterable[Path], memory: Path) -> str:
    """Digest of the names and contents of ``files``, remembered as :func:`weights_digest` does."""
    digests = _digests(files, memory)
    return fingerprint({"files": [(file.name, digests[file]) for file in sorted(digests)]})


def subject_digests(base: str, adapter: str | None, memory: Path, held: str = "none") -> dict[str, str | None]:
    """Digests of what is evaluated: ``base``, and the ``adapter`` folder's weights and config, None without one; and how the base
    is ``held`` (``model.quantise``), where that makes it another model."""
    return {
        "base": weights_digest(base, memory),
        "adapter": None if adapter is None else folder_digest(Path(adapter), memory),
        **({} if held == "none" else {"quantise": held}),
    }


def folder_digest(folder: Path, memory: Path) -> str:
    """Digest of the weights and configs in ``folder``, of an adapter or a model (there it is :func:`weights_digest`'s)."""
    return files_digest(_decisive(folder), memory)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A name for everything that ``facts`` say."""
    return hashlib.sha256(json_text(facts, sort_keys=True).encode()).hexdigest()[:32]


def _decisive(folder: Path) -> list[Path]:
    configs = ("config.json", "adapter_config.json")
    return sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS or file.name in configs)


def _digests(files: Iterable[Path], memory: Path | None = None) -> dict[Path, str]:
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = unsealed(memory.read_text(encoding="utf-8")) if memory else {}
    keys = {file: f"{file.resolve()} {' '.join(map(str, file_mark(file)))}" for file in files}
    new = [file for file in keys if keys[file] not in known]
    with ThreadPoolExecutor(min(_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
        known |= dict(zip((keys[file] for file in new), pool.map(_contents, new), strict=True))
    if new and memory:
        with contextlib.suppress(OSError):  # a folder nobody may write to: read again the next time
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, sealed(known))
    return {file: known[key] for file, key in keys.items()}


def _contents(file: Path) -> str:
    return file_digest(file, "blake2b")[:32]

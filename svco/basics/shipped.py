"""The files that come with svco, and the rule by which every path that somebody names is looked up.

A path is looked for from the working directory first, then among the shipped files: ``data_shards/tiny_llava`` means the embedded
base model from any folder. Recipes and DeepSpeed configs are found by their bare names, too: ``llava15_7b_lora``, ``zero3``.
"""

from __future__ import annotations

import os
import re
from glob import glob
from pathlib import Path, PurePosixPath

from .errors import UserError, nearest

FOLDER = Path(__file__).resolve().parents[1] / "shipped"
"""Recipes, DeepSpeed configs, shards and the base model, under their paths in the repository: links to them in a checkout, copies
in an installed package."""
RECIPES, DS_CONFIGS, SHARDS = "launchers/recipes", "ds_configs", "data_shards"


def at_home(path: str) -> str:
    """``path`` with the home folder for a ``~`` in front: the shell leaves it in ``key=~/x`` and in files."""
    return os.path.expanduser(path)


def typed(text: str) -> Path:
    """A path as it is typed on a command line."""
    return Path(at_home(text))


def located(path: str) -> str:
    """``path``, or glob pattern, if it leads to something from the working directory; else to the shipped files; else as it is: a
    hub id, or a path that its reader is going to miss."""
    path = at_home(path)
    if not path or glob(path) or os.path.isabs(path) or ".." in Path(path).parts:
        return path
    there = os.path.realpath(FOLDER / path)
    return there if glob(there) else path


def lasting(path: str) -> str:
    """``path``, or pattern with globs and braces, so that it means the same from any folder: a shipped file by its shipped path,
    what is found from the working directory by its absolute path. What is neither (a hub id, a URL) stays as it is."""
    path = at_home(path)
    before_pattern = re.split(r"[*?\[{]", path)[0]
    # Of a pattern only the folder that it begins in can be looked for.
    must_exist = path if before_pattern == path else os.path.dirname(before_pattern) or "."
    if not path or "://" in path or not os.path.exists(must_exist):
        return path
    shards, absolute = (FOLDER / SHARDS).resolve(), Path(path).resolve()
    if absolute.is_relative_to(shards):
        return f"{SHARDS}/{absolute.relative_to(shards)}"
    return os.path.abspath(path)


def is_inside(name: object) -> bool:
    """Whether ``name``, which a file says, names something inside the file's own folder: relative, and not by way of ``..``."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    parts = PurePosixPath(name.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts


def names(folder: str) -> dict[str, Path]:
    """Bare name -> file, of the shipped files of ``folder`` (RECIPES or DS_CONFIGS)."""
    return {file.stem: file for file in sorted((FOLDER / folder).iterdir()) if file.suffix in (".yaml", ".json")}


def find(name: str | Path, folder: str, what: str) -> Path:
    """The file that ``name`` means: a path, or the name of one of the shipped files of ``folder``, with its ending or without.
    UserError that calls it ``what``, says where it was looked for, and suggests the nearest shipped name."""
    path = Path(located(str(name)))
    if path.is_file():
        return path
    shipped = names(folder)
    bare = Path(name)
    if bare.name == str(name) and bare.suffix in ("", ".yaml", ".json") and bare.stem in shipped:
        return shipped[bare.stem]
    raise UserError(
        f"There is no {what} {name}, neither from {os.getcwd()} nor among those that come with svco."
        f"{nearest(bare.stem, shipped)}"
    )

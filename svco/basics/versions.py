"""What is installed here: versions of the packages that decide a run's numbers, and the commit of the source tree."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "svco", "torch", "transformers", "deepspeed", "peft", "bitsandbytes", "webdataset", "tokenizers", "numpy", "pillow",
)  # fmt: skip


def package_version(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the source tree, with ``-dirty`` when it has changes; None when installed without one, be it into a folder of
    somebody's own repository."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> str | None:
    """What git says here, or None."""
    try:
        found = subprocess.run(["git", *words], text=True, cwd=Path(__file__).parent, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None

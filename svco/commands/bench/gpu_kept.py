"""What the processes of a GPU check leave to each other."""

from __future__ import annotations

AGAIN = 3
"""Exit code of a process whose CUDA is spoilt: the parts that are left need another."""
PAGE = "page.md"
"""File of the page so far."""
VERDICT = "verdict"
"""File of the exit code so far."""

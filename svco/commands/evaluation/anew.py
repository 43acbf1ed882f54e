"""The figures of an evaluation anew, after its answers were judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.strict_json import json_text
from . import RESULT
from .against import Evaluation, paired_benchmarks
from .benchmarks.table import BENCHMARKS
from .report import page


def figures_anew(folder: Path) -> dict[str, Any]:
    """Takes the judgements in ``folder`` into its eval.json and eval.md, with the comparisons with other evaluations that are
    still where they were; what eval.json holds. UserError where there is no evaluation."""
    mine = Evaluation.read(folder)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    compat = bool(result["model"]["paper_compat"])
    for name, lines in mine.benchmarks.items():
        if BENCHMARKS[name].judging:
            result["benchmarks"][name] = BENCHMARKS[name].summary(lines, compat)
    for other in result.get("against", {}).values():
        try:
            theirs = Evaluation.read(Path(other["folder"]))
        except UserError:
            continue  # it is elsewhere by now: what was found then stays
        other |= paired_benchmarks(mine, theirs, compat)
    write_whole(folder / "eval.md", page(result))
    write_whole(folder / RESULT, json_text(result, indent=2, ascii_only=False) + "\n")
    return result

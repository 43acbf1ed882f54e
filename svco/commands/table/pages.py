"""The table as JSON, Markdown and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...basics.files import write_whole
from ...basics.html import render
from ...basics.markdown import markdown
from ...basics.strict_json import json_text
from ..evaluation.benchmarks.table import BENCHMARKS
from ..study.published import LLAVA_15_7B, LLAVA_INTERLEAVE_7B
from .by_harness import rows_by, shown_by
from .columns import COLUMNS, total
from .figures import Evaluated, others, rows_of
from .wanted import Wanted

PAPER = {"llava-1.5": ("LLaVA-1.5-7B", LLAVA_15_7B), "interleave": ("LLaVA-Interleave-Qwen-7B", LLAVA_INTERLEAVE_7B)}
"""Name -> (the paper's model, its rows)."""
NOTE = (
    "± is a standard error over questions (pairs in MMVP). Under a figure: its difference from BASE on the same questions, and "
    "the two-sided p of no difference (McNemar's exact test for shares, else random exchanges of the two models); nothing is "
    "corrected for the number of figures. TOTAL is the paper's: the mean over the columns of the relative change against BASE in "
    "%, the sign of hallucination flipped; its error is that of the questions alone, not of training anew."
)
THEIRS = (
    "The paper's rows are as reported there (arXiv 2502.13928, tables 1 and 2), not measured here, and without errors."
)


def write_table(models: Sequence[Evaluated], wanted: Wanted, say: Callable[[str], None]) -> list[Path]:
    """Writes ``table.json``, ``table.md`` and ``index.html`` into ``wanted.out``; their paths."""
    found: dict[str, Any] = {
        "svco": __version__,
        "base": wanted.base,
        "benchmarks": {name: str(folder) for name, folder in wanted.benchmarks.items()},
        "settings": dict(wanted.settings),
        "columns": [column.title for column in COLUMNS],
        "rows": rows_of(models, wanted.benchmarks, wanted.where),
    }
    found["paper"] = paper_rows(wanted.paper, wanted.base, found["rows"])
    found["beside"] = rows_by(models, wanted.beside)
    found["more"] = {name: BENCHMARKS[name].title for name in others(models)}
    shown: dict[str, Any] = {
        "title": f"{Path(wanted.base).name}: the paper's table",
        "columns": [{"title": column.title, "mark": mark} for column, mark in zip(COLUMNS, marks(found["rows"]))],
        "rows": [_row(row) for row in found["rows"]],
        "paper": [_paper_part(part) for part in found["paper"]],
        "more": _more(found),
        "beside": shown_by(found["beside"]),
        "notes": notes(found["rows"]),
        "gaps": gaps(found["rows"]),
        "texts": [NOTE, *([THEIRS] if found["paper"] else [])],
    }
    files = {
        "table.json": json_text(found, indent=1, ascii_only=False) + "\n",
        "table.md": page_of(shown),
        "index.html": render(Path(__file__).with_name("page.html.j2"), **shown),
    }
    for name, text in files.items():
        write_whole(wanted.out / name, text)
    for gap in shown["gaps"]:
        of = f" of {gap['of']}" if gap["of"] else ""
        say(f"not there: {gap['column']}{of}: {gap['gap']}")
    return [wanted.out / name for name in files]


def paper_rows(which: str, base: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The paper's rows that stand beside: its models', those of ``base`` alone where it is one of them. Each with TOTAL over the
    columns that the fullest row here has, where those are not all."""
    if which == "none":
        return []
    named = [key for key in PAPER if key in base.lower()] if which == "auto" else [which] if which in PAPER else []
    over = max((tuple(row["total"]["over"]) for row in rows if row["total"]), key=len, default=())
    found = []
    for key in named or PAPER:
        model, table = PAPER[key]
        theirs = {name: dict(zip((column.title for column in COLUMNS), row)) for name, row in table.items()}
        part = []
        for name, row in table.items():
            here = {title: theirs[name][title] for title in over}
            partly = total(theirs["BASE"], here)[0] if over and len(over) < len(COLUMNS) else None
            part.append({"name": name, "figures": theirs[name], "total": row[-1], "total_over_same": partly})
        found.append({"model": model, "same_base": bool(named) and which == "auto", "rows": part})
    return found


def notes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Title of a column -> what is to be known of its figures: [{"text", "of": the rows, where it is not all of them}]."""
    found = {column.title: _notes({row["name"]: row["figures"][column.title] for row in rows}) for column in COLUMNS}
    return {title: told for title, told in found.items() if told}


def _notes(figures: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, str]]:
    """Of the figures of one column, by row."""
    there = {name: one for name, one in figures.items() if one and "value" in one}
    said: dict[str, list[str]] = {}
    for name, one in there.items():
        for text in one["notes"]:
            said.setdefault(text, []).append(name)
    return [{"text": text, "of": ", ".join(of) if len(of) < len(there) else ""} for text, of in said.items()]


def marks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A letter for each column that has notes."""
    letters = dict(zip(notes(rows), "abcdefghi"))
    return [letters.get(column.title, "") for column in COLUMNS]


def gaps(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What is not there, and what brings it: [{"column", "of", "gap", "do"}]."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for column in COLUMNS:
        for row in rows:
            one = row["figures"][column.title]
            if "gap" in one:
                of = found.setdefault((one["gap"], one["do"]), {})
                of.setdefault(column.title, []).append(row["name"])
    lines = []
    for (why, do), of in found.items():
        names = sorted({name for some in of.values() for name in some})
        all_of_them = len(names) == len(rows)
        lines.append({"column": ", ".join(of), "of": "" if all_of_them else ", ".join(names), "gap": why, "do": do})
    return lines


def _cell(one: Mapping[str, Any] | None, digits: int) -> dict[str, str]:
    """A figure's texts: value, error, difference from the base, p."""
    if one is None or one.get("value") is None:
        return {"value": "–", "se": "", "gap": "", "p": "", "sure": ""}
    against = one.get("against_base")
    cell = {"value": f"{one['value']:.{digits}f}", "se": "", "gap": "", "p": "", "sure": ""}
    if one["se"] is not None:
        cell["se"] = f"± {one['se']:.{digits}f}"
    if against:
        cell["gap"] = f"{against['difference']:+.{digits}f}"
        cell["p"] = f"p {against['p']:.3f}" if against["p"] >= 0.001 else f"p {against['p']:.0e}"
        cell["sure"] = "sure" if against["p"] < 0.05 else ""
    return cell


def _total(told: Mapping[str, Any] | None) -> dict[str, str]:
    if told is None:
        return {"value": "0", "se": "", "over": ""}
    if told["value"] is None:
        return {"value": "–", "se": "", "over": ""}
    over = f"over {len(told['over'])} of {len(COLUMNS)} columns" if len(told["over"]) < len(COLUMNS) else ""
    se = "" if told["se"] is None else f"± {told['se']:.2f}"
    return {"value": f"{told['value']:+.2f}", "se": se, "over": over}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = [_cell(row["figures"][column.title], column.digits) for column in COLUMNS]
    return {"name": row["name"], "kind": row["kind"], "cells": cells, "total": _total(row["total"])}


def _paper_part(part: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in part["rows"]:
        partly = row["total_over_same"]
        over = f"{partly:+.2f} over the columns here" if partly else ""
        cells = [f"{row['figures'][column.title]:.{column.printed}f}" for column in COLUMNS]
        rows.append(
            {
                "name": row["name"],
                "cells": cells,
                "total": f"{row['total']:+.2f}" if row["total"] else "0",
                "over": over,
            }
        )
    return {"model": part["model"], "rows": rows}


def _more(found: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmarks beyond the paper's: titles, and a row a model."""
    rows = [
        {
            "name": row["name"],
            "cells": [
                _cell(row["more"][name], 2 if "score" in BENCHMARKS[name].plain else 1) for name in found["more"]
            ],
        }
        for row in found["rows"]
    ]
    notes_of = {
        title: _notes({row["name"]: row["more"][name] for row in found["rows"]})
        for name, title in found["more"].items()
    }
    return {"titles": list(found["more"].values()), "rows": rows if found["more"] else [], "notes": notes_of}


def page_of(shown: Mapping[str, Any]) -> str:
    """``table.md``."""

    def text(cell: Mapping[str, str]) -> str:
        told = f"{cell['value']} {cell['se']}".strip()
        return f"{told} ({cell['gap']}, {cell['p']})" if cell.get("gap") else told

    def sum_of(told: Mapping[str, str]) -> str:
        return " ".join(filter(None, (told["value"], told["se"], told["over"] and f"({told['over']})")))

    head = [
        "",
        *(f"{one['title']}{' (' + one['mark'] + ')' if one['mark'] else ''}" for one in shown["columns"]),
        "TOTAL %",
    ]
    rows = [[row["name"], *map(text, row["cells"]), sum_of(row["total"])] for row in shown["rows"]]
    lines = [f"# {shown['title']}", "", markdown([head, *rows])]
    for part in shown["paper"]:
        theirs = [
            [row["name"], *row["cells"], row["total"] + (f" ({row['over']})" if row["over"] else "")]
            for row in part["rows"]
        ]
        names = ["", *(one["title"] for one in shown["columns"]), "TOTAL %"]
        lines += [
            "",
            f"**The paper's rows, {part['model']}** (reported there, not measured here):",
            "",
            markdown([names, *theirs]),
        ]
    if shown["more"]["rows"]:
        body = [[row["name"], *map(text, row["cells"])] for row in shown["more"]["rows"]]
        lines += ["", "## Beyond the paper's columns", "", markdown([["", *shown["more"]["titles"]], *body]), ""]
        for title, told in shown["more"]["notes"].items():
            lines += [f"- {title}{', ' + note['of'] if note['of'] else ''}: {note['text']}" for note in told]
    if beside := shown["beside"]:
        body = [[row["name"], *map(text, row["cells"])] for row in beside["rows"]]
        lines += ["", f"## {beside['title']}", "", markdown([["", *beside["titles"]], *body]), ""]
        lines += [f"- {note}" for note in beside["notes"]]
    if shown["notes"]:
        lines += ["", "## How they are scored", ""]
        for one in shown["columns"]:
            for note in shown["notes"].get(one["title"], ()):
                lines.append(
                    f"- ({one['mark']}) {one['title']}{', ' + note['of'] if note['of'] else ''}: {note['text']}"
                )
    if shown["gaps"]:
        lines += ["", "## What is not there", ""]
        for gap in shown["gaps"]:
            of = f" of {gap['of']}" if gap["of"] else ""
            lines.append(f"- {gap['column']}{of}: {gap['gap']}" + (f"\n\n      {gap['do']}\n" if gap["do"] else ""))
    return "\n".join([*lines, "", *(f"{one}\n" for one in shown["texts"])])

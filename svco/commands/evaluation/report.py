"""An evaluation as a page of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...basics.markdown import markdown
from ...scores.measures import NAMES, SHARES
from .benchmarks.table import BENCHMARKS

_NOTE = (
    "± is a standard error and brackets a 95% interval, both over pairs (the two sides of a pair are taken together): "
    "Wilson's for shares, normal for the rest, on the logarithm for perplexities. Differences are paired by key, their "
    "intervals normal; p is two-sided: McNemar's exact test for shares of pairs, else 10,000 random exchanges of the two "
    "models within pairs (all exchanges where pairs are few). Nothing is corrected for the number of rows."
)


def page(result: Mapping[str, Any]) -> str:
    """``eval.md`` of what eval.json holds."""
    model = result["model"]
    adapter = f" with adapter `{model['adapter']}`" if model["adapter"] else ""
    lines = [
        f"# {model['name']}",
        "",
        f"Base `{model['base']}`{adapter}; {model['dtype']} on {model['device']}"
        + ("; as the S-VCO authors evaluate (`--paper-compat`)." if model["paper_compat"] else "."),
    ]
    if result["corrupt"]:
        lines[-1] += f" The corrupt view is `{result['corrupt']}`."
    if result["sets"]:
        lines += ["", "## Pairs", "", _sets(result["sets"])]
        for name, part in result["sets"].items():
            lines += _contrasts(name, part)
    if result["benchmarks"]:
        lines += ["", "## Benchmarks", "", _benchmarks(result["benchmarks"])]
    for label, other in result.get("against", {}).items():
        lines += _against(model["name"], label, other)
    return "\n".join([*lines, "", _NOTE, ""])


def _sets(sets: Mapping[str, Any]) -> str:
    def counted(part: Mapping[str, Any]) -> str:
        return f"{part['pairs']} ({part['bad']} bad)" if part["bad"] else str(part["pairs"])

    rows = [["", *sets], ["pairs", *map(counted, sets.values())]]
    for name, title in NAMES.items():
        if any(name in part for part in sets.values()):
            rows.append([title, *(_cell(name, part.get(name)) for part in sets.values())])
    if any(part["answers"] for part in sets.values()):
        rows.append(["answers", *(str(part["answers"]) for part in sets.values())])
    return markdown(rows)


def _contrasts(name: str, part: Mapping[str, Any]) -> list[str]:
    shown = ("pair_accuracy", "match_minus_blind", "blind_minus_clash", "own_image")
    lines: list[str] = []
    for key, title in (("by_contrast", "by contrast"), ("by_kind", "by kind")):
        if found := part.get(key):
            rows = [[title, "pairs", *(NAMES[measure] for measure in shown)]]
            for label, figures in found.items():
                rows.append([label, str(figures["pairs"]), *(_cell(measure, figures[measure]) for measure in shown)])
            lines += ["", f"### {name}, {title}", "", markdown(rows)]
    return lines


def _benchmarks(found: Mapping[str, Any]) -> str:
    head = [
        "",
        "score",
        "single questions",
        "questions",
        "no option said",
        "empty",
        "not asked",
        "how answers are read",
    ]
    rows = [head]
    for name, part in found.items():
        benchmark = BENCHMARKS[name]
        rows.append(
            [
                benchmark.title,
                _cell("pair_accuracy", part[benchmark.headline]),
                _cell("pair_accuracy", part.get("question_accuracy")),
                *(str(part.get(count, "")) for count in ("questions", "unparseable", "empty", "not_asked")),
                part.get("rule", ""),
            ]
        )
    return markdown(rows)


def _against(name: str, label: str, other: Mapping[str, Any]) -> list[str]:
    lines = ["", f"## {name} minus {label}"]
    for what, found in (other["sets"] | other["benchmarks"]).items():
        rows = []
        for measure, part in found.items():
            share = measure in SHARES or what in BENCHMARKS
            form = "pair_accuracy" if share else measure
            rows.append(
                [
                    NAMES.get(measure, measure),
                    str(part["pairs"]),
                    _number(form, part["a"]),
                    _number(form, part["b"]),
                    _cell(form, part, signed=True),
                    _p(part["p"]),
                ]
            )
        if rows:
            head = ["", "pairs", name, label, "difference", "p"]
            lines += ["", f"### {what}", "", markdown([head, *rows])]
    if not (other["sets"] or other["benchmarks"]):
        lines += ["", "They share no set and no benchmark."]
    return lines


def _cell(measure: str, part: Mapping[str, Any] | None, signed: bool = False) -> str:
    """``value ± s.e. [low, high]``; shares in percent, their differences in points."""
    if part is None or part["value"] is None:
        return ""
    value = part["difference"] if "difference" in part else part["value"]
    text = _number(measure, value, signed)
    if part["se"] is None:
        return text
    bare = [_number(measure, part[key]).removesuffix("%") for key in ("se", "low", "high")]
    return f"{text} ± {bare[0]} [{bare[1]}, {bare[2]}]"


def _number(measure: str, value: float | None, signed: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return ""
    sign = "+" if signed else ""
    if measure in SHARES:
        return f"{100 * value:{sign}.1f}" + (" points" if signed else "%")
    return f"{value:{sign}.3f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"

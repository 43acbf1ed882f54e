"""An evaluation as a page of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...basics.markdown import markdown
from ...scores.measures import MATCHES, NAMES, SHARES
from .benchmarks.table import BENCHMARKS

_NOTE = (
    "± is a standard error and brackets a 95% interval, both over pairs (the two sides of a pair are taken together): "
    "Wilson's for shares, normal for the rest, on the logarithm for perplexities. Differences are paired by key, their "
    "intervals normal, of shares of pairs the paired bootstrap's (10,000 draws). p is two-sided: McNemar's exact test for "
    "shares of pairs, else 10,000 random exchanges of the two models within pairs (all exchanges where pairs are few). "
    "Nothing is corrected for the number of rows. Pair, image and group accuracy are Winoground's text, image and group score; "
    "without the prior a response counts as log p(response | image) − log p(response | no image)."
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
        for name, part in result["benchmarks"].items():
            lines += _judged(name, part) if part.get("judged") else _shown(name, part)
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
    shown = (*MATCHES, "match_minus_blind", "blind_minus_clash", "own_image")
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
                _cell(_form(name, "score"), part.get(benchmark.headline)),
                _cell("pair_accuracy", part.get("question_accuracy")),
                *(str(part.get(count, "")) for count in ("questions", "unparseable", "empty", "not_asked")),
                part.get("rule", ""),
            ]
        )
    return markdown(rows)


def _judged(name: str, part: Mapping[str, Any]) -> list[str]:
    """What is told of a judged benchmark beside its row."""
    agreed = part["agreement"]
    lines = ["", f"### {BENCHMARKS[name].title}", ""]
    missing = part["questions"] - part["judged"]
    lines.append(f"{part['judged']} of {part['questions']} questions {part['rule']}.")
    if missing:
        lines[-1] += f" The figures leave out {missing} questions that have no judgement."
    if agreed["units"]:
        alpha = "undefined" if agreed["alpha"] is None else f"{agreed['alpha']:.2f}"
        lines[-1] += (
            f" Two judgements of one question are {agreed['apart']:.2f} {agreed['unit']} apart, and equal in "
            f"{100 * agreed['same']:.0f}% of the cases; Krippendorff's α is {alpha} (1: judgements of a question never differ; "
            "0: as much as those of different questions)."
        )
    for key in [key for key in part if key.startswith("by_")]:
        measures = list(dict.fromkeys(one for figures in part[key].values() for one in figures if one != "questions"))
        rows = [[key.removeprefix("by_"), "questions", *measures]]
        for label, figures in part[key].items():
            cells = [_cell(_form(name, measure), figures.get(measure)) for measure in measures]
            rows.append([label, str(figures["questions"]), *cells])
        lines += ["", markdown(rows)]
    return lines


def _form(name: str, measure: str) -> str:
    """As what ``measure`` of a benchmark is written: a share, or as it is."""
    return measure if measure in BENCHMARKS[name].plain else "pair_accuracy"


def _shown(name: str, part: Mapping[str, Any]) -> list[str]:
    """The further figures of a benchmark that has some, of all and by kind."""
    benchmark = BENCHMARKS[name]
    if not benchmark.shown:
        return []
    kinds = part.get("by_kind", {})
    rows = [
        ["", "all", *kinds],
        [
            "n",
            str(part.get("samples", part["questions"])),
            *(str(of["pairs"]) for of in kinds.values()),
        ],
    ]
    for key, title in benchmark.shown.items():
        rows.append([title, *(_cell("pair_accuracy", of.get(key)) for of in (part, *kinds.values()))])
    return ["", f"### {benchmark.title}", "", markdown(rows)]


def _against(name: str, label: str, other: Mapping[str, Any]) -> list[str]:
    lines = ["", f"## {name} minus {label}"]
    for what, found in (other["sets"] | other["benchmarks"]).items():
        rows = []
        for measure, part in found.items():
            form = _form(what, measure) if what in BENCHMARKS else "pair_accuracy" if measure in SHARES else measure
            rows.append(
                [
                    (BENCHMARKS[what].shown if what in BENCHMARKS else NAMES).get(measure, NAMES.get(measure, measure)),
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
    for what, why in other.get("not_compared", {}).items():
        lines += ["", f"{BENCHMARKS[what].title} is not compared: {why}."]
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

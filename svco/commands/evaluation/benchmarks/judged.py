"""Benchmarks whose answers another model judges: asked here in free words, judged by ``svco judge``, figured here again.

Lines of ``NAME.judged.jsonl``, one a question: ``key``; ``answer``, what was judged; ``judge``: the model ``asked``, the
``prompt`` with its ``prompt_sha256`` and ``parameters``, ``dollars`` for a million tokens of prompts and of replies (null:
unknown); ``judgements``, each with what it says (``values``), the model that ``answered``, when (``at``), its tokens and words
(``said``); ``failed``: why judgements that were asked for are lacking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....endpoint.prices import money
from ....scores.agreement import agreement
from ....scores.statistics import Measure, estimate
from ..generation import Question
from .asked import say
from .choices import Item, read_lines
from .protocol import Asking, Lines
from .rows import opener

Values = Mapping[str, float]
"""What one judgement says, by name."""


def judged_file(folder: Path, name: str) -> Path:
    """Where the judgements of benchmark ``name`` are."""
    return folder / f"{name}.judged.jsonl"


def ask_freely(what: str, items: Sequence[Item], asking: Asking) -> list[dict[str, Any]]:
    """Asks every item; the lines of the answers file, in order, on every rank. A collective.

    A line: :func:`say`'s, and the labels. An answer that could not be asked for is judged by nobody.
    """
    questions = [Question(item.name, item.prompt, opener(item.image, item.name)) for item in items]
    at_length = replace(asking, max_new_tokens=asking.max_free_tokens)
    said = say(what, questions, at_length, "are left out of its figures")
    return [{**line, **item.labels} for item, line in zip(items, said, strict=True)]


def with_judgements(folder: Path, name: str, lines: Lines) -> Lines:
    """``lines``, the answers of benchmark ``name`` in ``folder``, with what they were judged, where they were."""
    if not judged_file(folder, name).exists():
        return lines
    judged = {}
    for one in read_lines(judged_file(folder, name)):
        if not _is_judged(one):
            raise UserError(
                f"{judged_file(folder, name)} holds {str(one)[:80]!r}, which is no judgement. Delete that file and judge again: "
                "replies that are in the cache cost nothing."
            )
        judged[one["key"]] = one
    none: dict[str, Any] = {}
    found = []
    for line in lines:
        about = judged.get(line["key"], none)
        found.append({**line, **about} if about.get("answer") == line["answer"] else line)
    return found


def _is_judged(line: Any) -> bool:
    """Whether ``line`` has the form of a line of ``NAME.judged.jsonl``."""
    try:
        judge, judgements = line["judge"], line["judgements"]
        texts = [line["key"], line["answer"], judge["asked"], judge["prompt"], judge["prompt_sha256"]]
        texts += [judgement[name] for judgement in judgements for name in ("answered", "at")]
        numbers = [number for judgement in judgements for number in judgement["values"].values()]
        numbers += [judgement[name] for judgement in judgements for name in ("prompt_tokens", "reply_tokens")]
        numbers += judge["dollars"] or []
        lists = isinstance(line["failed"], list) and isinstance(judge["parameters"], dict)
    except (KeyError, TypeError, AttributeError):
        return False
    return lists and all(isinstance(text, str) for text in texts) and all(type(n) in (int, float) for n in numbers)


def judge_of(lines: Lines) -> dict[str, Any] | None:
    """Who judged ``lines``, and by which prompt; None where nobody did. UserError for a file of several judges."""
    found = [line["judge"] for line in lines if line.get("judgements")]
    who = [{name: judge[name] for name in ("asked", "prompt_sha256", "parameters")} for judge in found]
    if any(one != who[0] for one in who):
        raise UserError("Judgements of several judges are in one file. Delete it and judge again.")
    return found[0] if found else None


def judged_mean(
    lines: Lines, part: Callable[[Values], float], whole: Callable[[Values], float] | None = None
) -> Measure:
    """Σ ``part`` / Σ ``whole`` (None: 1) over the questions, each the mean over its judgements; questions without any do not
    count. ``rate`` where ``part`` is within 0 and 1 and nothing else divides it."""
    parts, wholes = np.zeros(len(lines)), np.zeros(len(lines))
    for row, line in enumerate(lines):
        if given := [judgement["values"] for judgement in line.get("judgements", ())]:
            parts[row] = np.mean([part(values) for values in given])
            wholes[row] = 1.0 if whole is None else np.mean([whole(values) for values in given])
    bounded = whole is None and len(parts) and parts.max() <= 1
    return Measure.rate(parts, wholes) if bounded else Measure(parts, wholes)


def about_judging(lines: Lines, number: Callable[[Values], float], unit: str) -> dict[str, Any]:
    """What every judged benchmark's part of eval.json tells beside its figures; ``number``: what the agreement is taken of, in
    ``unit``."""
    told: dict[str, Any] = {
        "questions": len(lines),
        "empty": sum(not line["answer"].strip() for line in lines),
        "not_asked": sum(not line["asked"] for line in lines),
    }
    judge = judge_of(lines)
    if judge is None:
        return told | {"judged": 0, "rule": "not judged yet: svco judge THIS_FOLDER --model MODEL"}
    judgements = [line.get("judgements", ()) for line in lines]
    given = [judgement for some in judgements for judgement in some]
    agreed = agreement([[number(judgement["values"]) for judgement in some] for some in judgements])
    told |= {
        "judged": sum(bool(some) for some in judgements),
        "failed": sum(len(line.get("failed", ())) for line in lines),
        "judgements": len(given),
        "agreement": asdict(agreed) | {"unit": unit},
        "judge": {
            **judge,
            "answered": sorted({judgement["answered"] for judgement in given}),
            "first": min(judgement["at"] for judgement in given),
            "last": max(judgement["at"] for judgement in given),
            "prompt_tokens": sum(judgement["prompt_tokens"] for judgement in given),
            "reply_tokens": sum(judgement["reply_tokens"] for judgement in given),
        },
    }
    cost = None
    if judge["dollars"] is not None:
        of_prompts, of_replies = judge["dollars"]
        cost = (of_prompts * told["judge"]["prompt_tokens"] + of_replies * told["judge"]["reply_tokens"]) / 1e6
    told["judge"]["cost"] = cost
    return told | {"rule": _rule(told)}


def _rule(told: Mapping[str, Any]) -> str:
    judge = told["judge"]
    days = sorted({judge["first"][:10], judge["last"][:10]})
    cost = "cost unknown" if judge["cost"] is None else money(judge["cost"]) if judge["cost"] else "no cost"
    each = told["judgements"] / told["judged"]
    return (
        f"judged by {', '.join(judge['answered'])} (asked as {judge['asked']}), prompt {judge['prompt']} "
        f"{judge['prompt_sha256'][:12]}, {' to '.join(days)}, {each:g} judgement{'s' if each != 1 else ''} a question, {cost}"
    )


def estimates_by(
    lines: Lines, label: str, measures: Callable[[Lines, bool], dict[str, Measure]], several: bool = False
) -> dict[str, Any]:
    """{value of ``label``: {"questions", measure: its estimate}} in the order of the lines; ``several``: a line has as many
    values as commas part it into, and counts for each."""
    values = [line[label].split(", ") if several else [line[label]] for line in lines]
    found = {}
    for value in dict.fromkeys(one for some in values for one in some):
        part = [line for line, some in zip(lines, values, strict=True) if value in some]
        figures = {name: estimate(measure).json() for name, measure in measures(part, False).items()}
        found[value] = {"questions": len(part), **figures}
    return found


def read_json(path: Path, what: str) -> Any:
    """The JSON in ``path``; UserError, which says ``what`` it belongs to, where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). {what}") from None

"""LLaVA-Bench (in the wild) (arXiv 2304.08485) from its release: ``questions.jsonl``, ``context.jsonl``, ``answers_gpt4.jsonl``
and ``images``; 60 questions about 24 pictures.

A judge that sees no picture, but a person's description, gives the release's reference answer and the model's 1 to 10 points
each. The score is the ratio of the two sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.shipped import is_inside
from ....scores.statistics import Measure, estimate
from .choices import Item, read_lines
from .judged import about_judging, ask_freely, estimates_by, judged_mean
from .protocol import Benchmark, Judging, Lines
from .rows import check_pictures

NAME = "llava_bench_w"
QUESTIONS, CONTEXT, REFERENCE = "questions.jsonl", "context.jsonl", "answers_gpt4.jsonl"
_WHAT = "llava_bench_w is the folder of LLaVA-Bench (in the wild)'s release."
_FIELDS = {QUESTIONS: ("question_id", "image", "text", "category"), CONTEXT: ("image", "caption")}
_FIELDS |= {REFERENCE: ("question_id", "text")}


def read(folder: Path) -> list[Item]:
    """The questions in the file's order; UserError for what is not the release."""
    questions, contexts, references = (_lines(folder / name) for name in (QUESTIONS, CONTEXT, REFERENCE))
    captions = {str(line["image"]): line["caption"] for line in contexts}
    told = {str(line["question_id"]): line["text"] for line in references}
    items = []
    for line in questions:
        name, image = str(line["question_id"]), str(line["image"])
        if image not in captions or name not in told or not is_inside(image):
            raise UserError(f"Question {name} of {folder} has no description or no reference answer. {_WHAT}")
        caption = captions[image]
        labels = {
            "reference": str(told[name]),
            "context": "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption),
            "category": str(line["category"]),
        }
        items.append(Item(name, str(line["text"]), {}, "", folder / "images" / image, labels))
    check_pictures([item.image for item in items], folder)
    return items


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = read_lines(path)
    if not lines:
        raise UserError(f"{path} is empty. {_WHAT}")
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or (absent := [name for name in _FIELDS[path.name] if name not in line]):
            raise UserError(f"{path}, line {number}, lacks {', '.join(absent) or 'everything'}. {_WHAT}")
    return lines


def measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By question: ``score``, the model's points over the reference's. Nothing before it is judged."""
    if not any(line.get("judgements") for line in lines):
        return {}
    return {"score": judged_mean(lines, lambda values: values["model"], lambda values: values["reference"])}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """LLaVA-Bench-W's part of eval.json. ``score`` is the ratio: 1 where the model is given what the reference is."""
    told = about_judging(lines, lambda values: values["model"], "of 10, the model's points")
    found = measures(lines, paper_compat)
    if not found:
        return told
    return {
        "score": found["score"].value,
        "ratio": estimate(found["score"]).json(),
        "by_category": estimates_by(lines, "category", measures),
        **told,
    }


BENCHMARK = Benchmark(
    NAME,
    title="LLaVA-Bench-W, points over the reference's",
    fetch="git clone https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild llava_bench_w   (Git LFS; Apache-2.0, by "
    "its hub card)",
    read=read,
    answer=partial(ask_freely, NAME),
    measures=measures,
    summary=summary,
    headline="ratio",
    judging=Judging(("question", "context", "reference", "answer"), {"reference": (1, 10), "model": (1, 10)}),
)

"""CV-Bench (arXiv 2406.16860) from its release: 2,638 questions, JSON lines beside ``img`` or parquet with the images.

The score is the release's own formula, ½ [(ADE20K + COCO) / 2 + Omni3D] over the accuracies of the three sources, and not the
share of all questions, which some harnesses give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....basics.shipped import is_inside
from ....scores.statistics import Estimate, Measure, Z, estimate
from .choices import Item, ask_items, check_images, count_answers, marks, read_lines
from .protocol import Benchmark

NAME = "cv_bench"
WEIGHTS = {"ADE20K": 0.25, "COCO": 0.25, "Omni3D": 0.5}
"""Source -> what its accuracy counts in the score."""
_FIELDS = ("idx", "task", "source", "prompt", "choices", "answer")


def read(folder: Path) -> list[Item]:
    """The questions of all ``test*`` files; JSON lines where they are there, else parquet, which needs pyarrow."""
    files = sorted(folder.glob("test*.jsonl")) or sorted(folder.glob("*.jsonl"))
    records = (record for file in files for record in read_lines(file)) if files else _parquet(folder)
    items = [_item(record, folder) for record in records]
    if absent := WEIGHTS.keys() - {item.labels["source"] for item in items}:
        raise UserError(
            f"{folder} has no question from {', '.join(sorted(absent))}; the score needs {', '.join(WEIGHTS)}. The "
            "release has test_2d and test_3d."
        )
    check_images(items, folder)
    return items


def _parquet(folder: Path) -> Iterator[Mapping[str, Any]]:
    files = sorted(folder.glob("test*.parquet"))
    if not files:
        raise UserError(
            f"{folder} holds neither test*.jsonl nor test*.parquet. cv_bench is the folder of CV-Bench's release."
        )
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{folder} holds parquet alone, which needs pyarrow: pip install pyarrow, or take the release's test_2d.jsonl, "
            "test_3d.jsonl and img."
        ) from None
    for file in files:
        try:
            table = pyarrow.parquet.read_table(str(file))
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise UserError(
                f"{file} cannot be read: {error} Fetch the release again (a clone of it needs Git LFS)."
            ) from None
        yield from table.to_pylist()


def _item(record: Mapping[str, Any], folder: Path) -> Item:
    if absent := [name for name in _FIELDS if name not in record]:
        raise UserError(f"A question of {folder} (idx {record.get('idx')!r}) lacks {', '.join(absent)}.")
    options = {chr(ord("a") + place): str(text) for place, text in enumerate(record["choices"])}
    right = str(record["answer"]).strip().lower().strip("()")
    if right not in options or record["source"] not in WEIGHTS:
        raise UserError(
            f"Question {record['idx']} of {folder}: answer {record['answer']!r} of choices {record['choices']!r}, source "
            f"{record['source']!r}; that is not CV-Bench's form."
        )
    labels = {"source": record["source"], "task": record["task"]}
    return Item(str(record["idx"]), record["prompt"], options, right, _image(record, folder), labels)


def _image(record: Mapping[str, Any], folder: Path) -> Path | bytes:
    image = record.get("image")  # a file's name, or in parquet its bytes with its path
    if isinstance(image, Mapping):
        if image.get("bytes"):
            return image["bytes"]
        image = image.get("path")
    name = record.get("filename") or image
    if not name:
        raise UserError(f"Question {record['idx']} of {folder} names no image (filename).")
    if not is_inside(name):
        raise UserError(f"Question {record['idx']} of {folder} names the image {name!r}, outside of that folder.")
    places = [folder / name, folder / "img" / name]
    return next((place for place in places if place.is_file()), places[0])


def measures(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Measure]:
    """By question. ``score``: weighted so that the mean is the formula; ``questions``: the share of all."""
    right = np.array(marks(lines, paper_compat), dtype=float)
    sources = np.array([line["source"] for line in lines])
    weights = np.array([WEIGHTS[s] / (sources == s).mean() for s in sources.tolist()])
    return {"score": Measure.mean(weights * right), "questions": Measure.share(right)}


def summary(lines: Sequence[Mapping[str, Any]], paper_compat: bool) -> dict[str, Any]:
    """CV-Bench's part of eval.json. ``score`` is the release's formula, from 0 to 1; the sources' errors are independent."""
    right = np.array(marks(lines, paper_compat))

    def by(label: str) -> dict[str, Any]:
        names = np.array([line[label] for line in lines])
        return {
            name: {"questions": int((names == name).sum()), **estimate(Measure.share(right[names == name])).json()}
            for name in sorted(set(names.tolist()))
        }

    sources = by("source")
    value = sum(weight * sources[name]["value"] for name, weight in WEIGHTS.items())
    error = math.sqrt(sum((weight * (sources[name]["se"] or 0.0)) ** 2 for name, weight in WEIGHTS.items()))
    return {
        "score": value,
        "combined_accuracy": Estimate(value, error, value - Z * error, value + Z * error).json(),
        "question_accuracy": estimate(Measure.share(right)).json(),
        "by_source": sources,
        "by_task": by("task"),
        **count_answers(lines, paper_compat),
    }


BENCHMARK = Benchmark(
    NAME,
    title="CV-Bench, ½[(ADE20K + COCO)/2 + Omni3D]",
    fetch="git clone https://huggingface.co/datasets/nyu-visionx/CV-Bench cv_bench   (Git LFS; Apache-2.0, by its hub card)",
    read=read,
    answer=partial(ask_items, NAME),
    measures=measures,
    summary=summary,
    headline="combined_accuracy",
)

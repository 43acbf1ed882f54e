"""Tiny MMVP and CV-Bench in the form of their releases."""

from __future__ import annotations

import csv
import io
import json

from PIL import Image

COLOURS = ("red", "green", "blue", "grey")


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (48, 40), COLOURS[number % 4]).save(data, "JPEG")
    return data.getvalue()


def make_mmvp(folder, pairs=3):
    """``Questions.csv`` and ``MMVP Images/{row}.jpg``; the answers of a pair are (a) and (b)."""
    (folder / "MMVP Images").mkdir(parents=True)
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Index", "Question", "Options", "Correct Answer"])
        for number in range(1, 2 * pairs + 1):
            question = f"Is the door, number {(number + 1) // 2}, open or closed?"
            rows.writerow([number, question, "(a) Open (b) Closed", "(a)" if number % 2 else "(b)"])
            (folder / "MMVP Images" / f"{number}.jpg").write_bytes(picture(number))
    return folder


def cv_records():
    """Three questions from ADE20K, two from COCO, four from Omni3D, as the release's JSON lines have them: not as its score
    weighs them."""
    sources = [
        ("2D", "ADE20K", "Count"),
        ("2D", "COCO", "Relation"),
        ("3D", "Omni3D", "Depth"),
        ("3D", "Omni3D", "Distance"),
    ]
    for idx, of in enumerate((0, 0, 0, 1, 1, 2, 2, 3, 3)):
        kind, source, task = sources[of]
        choices = [str(idx), str(idx + 1), str(idx + 2)]
        listed = "\n".join(f"({letter}) {text}" for letter, text in zip("ABC", choices))
        yield {
            "idx": idx,
            "type": kind,
            "task": task,
            "question": f"How many things are in picture {idx}?",
            "choices": choices,
            "answer": f"({'ABC'[idx % 3]})",
            "prompt": f"How many things are in picture {idx}? Select from the following choices.\n{listed}",
            "filename": f"img/{kind}/{idx}.png",
            "source": source,
            "source_dataset": source,
        }


def make_cv_bench(folder):
    """``test_2d.jsonl``, ``test_3d.jsonl`` and ``img``."""
    for kind in ("2D", "3D"):
        (folder / "img" / kind).mkdir(parents=True)
        records = [record for record in cv_records() if record["type"] == kind]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"test_{kind.lower()}.jsonl").write_text(lines, encoding="utf-8")
        for record in records:
            (folder / record["filename"]).write_bytes(picture(record["idx"]))
    return folder

"""Tiny benchmarks in the form of their releases."""

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


def parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), str(path))


def scienceqa_problems():
    """Three questions of the test split, the second without a picture, and one of another, as ``problems.json`` has them."""
    rest = {"grade": "grade2", "topic": "science", "lecture": "", "solution": ""}
    return {
        "11": rest
        | {"question": "Which is cold?", "choices": ["snow", "fire"], "answer": 0, "hint": "", "image": "image.png"}
        | {"subject": "natural science", "split": "test"},
        "12": rest
        | {"question": "Which is a noun?", "choices": ["run", "cat", "red"], "answer": 1, "hint": "", "image": None}
        | {"subject": "language science", "split": "test"},
        "13": rest
        | {
            "question": "Which is north?",
            "choices": ["A", "B"],
            "answer": 1,
            "hint": "See the map.",
            "image": "image.png",
        }
        | {"subject": "social science", "split": "test"},
        "14": rest
        | {"question": "Not asked?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None}
        | {"subject": "social science", "split": "train"},
    }


def make_scienceqa(folder):
    """``problems.json``, ``pid_splits.json`` and ``images/test/ID/image.png``."""
    problems = scienceqa_problems()
    for key, problem in problems.items():
        if problem["image"]:
            (folder / "images/test" / key).mkdir(parents=True)
            (folder / "images/test" / key / "image.png").write_bytes(picture(int(key)))
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(
        json.dumps({"train": ["14"], "test": ["11", "12", "13"], "minitest": ["11"]})
    )
    return folder


def make_realworldqa(folder):
    """The hub's parquet: multiple choice, a word, a number."""
    letter = "Please answer directly with only the letter of the correct option and nothing else."
    word = "Please answer directly with a single word or number."
    asked = [
        (f"Which?\nA. Left\nB. Right\n{letter}", "B"),
        (f"Is it green?\n{word}", "Yes"),
        (f"How many?\n{word}", "3"),
    ]
    rows = [
        {"image": {"bytes": picture(number), "path": f"{number}.webp"}, "question": question, "answer": answer}
        for number, (question, answer) in enumerate(asked)
    ]
    parquet(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def make_textvqa(folder):
    """The annotation file, Rosetta's tokens and ``train_images``: three questions about two pictures."""
    (folder / "train_images").mkdir(parents=True)
    said = [
        ("p0", "what is the brand?", "dakota"),
        ("p0", "what number is it?", "2"),
        ("p1", "who drives Bo's car?", "bo"),
    ]
    data = [
        {
            "question": question,
            "image_id": image,
            "answers": [right] * 7 + ["other", "the other", "no"],
            "question_id": 34602 + n,
        }
        | {"set_name": "val", "image_width": 48, "image_height": 40}
        for n, (image, question, right) in enumerate(said)
    ]
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({**head, "data": data}))
    tokens = [{"image_id": "p0", "ocr_tokens": ["DAKOTA", "2"]}, {"image_id": "p1", "ocr_tokens": []}]
    (folder / "TextVQA_Rosetta_OCR_v0.2_val.json").write_text(json.dumps({"dataset_type": "val", "data": tokens}))
    for number in range(2):
        (folder / "train_images" / f"p{number}.jpg").write_bytes(picture(number))
    return folder


def make_pope(folder):
    """Two questions of each subset about one picture, in the official lines of JSON, and ``val2014``."""
    (folder / "val2014").mkdir(parents=True)
    (folder / "val2014/COCO_val2014_000000000001.jpg").write_bytes(picture(1))
    for subset, absent in (("random", "zebra"), ("popular", "table"), ("adversarial", "fork")):
        lines = [
            {
                "question_id": n,
                "image": "COCO_val2014_000000000001.jpg",
                "text": f"Is there a {what} in the image?",
                "label": label,
            }
            for n, (what, label) in enumerate((("wall", "yes"), (absent, "no")), 1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"coco_pope_{subset}.json").write_text(text)
    return folder


def hallusion_rows():
    """A set about a chart with and without it, and one about a figure and its edited copy."""
    said = [
        ("VS", "chart", "0", "0", "0", "0", "0", None),
        ("VS", "chart", "0", "0", "1", "0", "1", None),
        ("VS", "chart", "0", "1", "0", "1", "0", "./VS/chart/0_1.png"),
        ("VS", "chart", "0", "1", "1", "1", "1", "./VS/chart/0_1.png"),
        ("VD", "illusion", "0", "0", "0", "1", "1", "./VD/illusion/0_0.png"),
        ("VD", "illusion", "0", "1", "0", "2", "0", "./VD/illusion/0_1.png"),
    ]
    names = ("category", "subcategory", "set_id", "figure_id", "question_id", "visual_input", "gt_answer", "filename")
    for row in said:
        yield {"question": f"Is {row[4]} larger in {row[1]}?", "gt_answer_details": "", "sample_note": ""} | dict(
            zip(names, row)
        )


def make_hallusionbench(folder):
    """``HallusionBench.json`` and ``hallusion_bench/``."""
    rows = list(hallusion_rows())
    for number, name in enumerate(sorted({row["filename"] for row in rows if row["filename"]})):
        (folder / "hallusion_bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "hallusion_bench" / name).write_bytes(picture(number))
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    return folder


RELEASES = {
    "mmvp": make_mmvp,
    "cv_bench": make_cv_bench,
    "scienceqa": make_scienceqa,
    "realworldqa": make_realworldqa,
    "textvqa": make_textvqa,
    "pope": make_pope,
    "hallusionbench": make_hallusionbench,
}
"""Name of a benchmark's folder -> what makes its release there."""

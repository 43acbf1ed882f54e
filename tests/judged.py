"""Tiny MMHal-Bench, MM-Vet and LLaVA-Bench-W in the form of their releases, and evaluations that answered them."""

from __future__ import annotations

import json
import re

from benchmarks import picture

from svco.commands.evaluation.benchmarks.table import BENCHMARKS

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")


def make_mmhal(folder, count=8):
    """``response_template.json`` and ``images``, the eight types in turn, as the release has them."""
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(count):
        name = f"{number:05d}_o.jpg"
        (folder / "images" / name).write_bytes(picture(number))
        records.append(
            {
                "question_type": TYPES[number % 8],
                "question_topic": "vehicle",
                "image_id": f"id{number}",
                "image_src": f"https://farm1.staticflickr.com/{number}/{name}",
                "image_content": ["Car", "Wheel"],
                "question": f"What colour is car {number}?",
                "gt_answer": f"It is a red car, number {number}.",
                "model_answer": "",
            }
        )
    (folder / "response_template.json").write_text(json.dumps(records, indent=4), encoding="utf-8")
    return folder


def make_mm_vet(folder, count=4):
    """``mm-vet.json`` and ``images``."""
    (folder / "images").mkdir(parents=True)
    records = {}
    for number in range(count):
        (folder / "images" / f"v1_{number}.png").write_bytes(picture(number))
        records[f"v1_{number}"] = {
            "imagename": f"v1_{number}.png",
            "question": f"What is x in equation {number}?",
            "answer": "-1<AND>-5" if number % 2 else "red<OR>crimson",
            "imagesource": "made here",
            "capability": ["ocr", "math"] if number % 2 else ["rec"],
        }
    (folder / "mm-vet.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def make_llava_bench_w(folder, count=4):
    """``questions.jsonl``, ``context.jsonl``, ``answers_gpt4.jsonl`` and ``images``; two questions a picture."""
    (folder / "images").mkdir(parents=True)
    files = {"questions": [], "context": [], "answers_gpt4": []}
    for number in range(count):
        image = f"{number // 2 + 1:03d}.jpg"
        if number % 2 == 0:
            (folder / "images" / image).write_bytes(picture(number))
            files["context"].append({"id": image[:3], "image": image, "caption": f"A car in {image}."})
        question = {"question_id": number, "image": image, "text": f"What is special about car {number}?"}
        files["questions"].append(question | {"category": ("conv", "detail", "complex")[number % 3]})
        answer = {"question_id": number, "text": f"It is car {number}, and red.", "answer_id": f"a{number}"}
        files["answers_gpt4"].append(answer | {"prompt": question["text"], "model_id": "gpt-4", "metadata": {}})
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


MAKERS = {"mmhal": make_mmhal, "mm_vet": make_mm_vet, "llava_bench_w": make_llava_bench_w}


def answered(folder, name, releases, answer):
    """An evaluation in ``folder`` as ``svco eval`` leaves it, in which ``answer(benchmark, item)`` was said to every question of
    ``releases``: {benchmark: its folder}."""
    folder.mkdir(parents=True)
    facts = {"name": name, "base": "b", "adapter": None, "dtype": "float32", "device": "cpu", "paper_compat": False}
    result = {"model": facts, "corrupt": None, "sets": {}, "benchmarks": {}}
    for benchmark, release in releases.items():
        lines = []
        for item in BENCHMARKS[benchmark].read(release):
            said = answer(benchmark, item)
            line = {"key": item.name, "query": item.prompt, "answer": said or "", "asked": said is not None}
            lines.append(line | dict(item.labels))
        (folder / f"{benchmark}.answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result["benchmarks"][benchmark] = BENCHMARKS[benchmark].summary(lines, False)
    (folder / "eval.json").write_text(json.dumps(result))
    return folder


def judging(body):
    """What a judge replies to svco's own prompts: an answer's grade is the number in it."""
    user = body["messages"][-1]["content"]
    if "Rating: N" in user:
        grade = re.search(r"Answer to rate: .*?(\d)", user)[1]
        return f"It says what it says.\n\n**Rating: {grade}**"
    if "[Second answer]" in user:
        grade = re.search(r"\[Second answer\]\s*.*?(\d)", user)[1]
        return f"8 {int(grade) + 1}\nBecause."
    return f"0.{re.search(r'.*', user.splitlines()[-1].split('|')[2])[0].strip()[-1]}"

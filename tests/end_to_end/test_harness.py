"""lmms-eval in its own environment, with svco as its model: it says what svco says, and its figures are ours on these answers."""

import json
import os
import re
from functools import partial
from pathlib import Path

import oracle
import pytest
from benchmarks import make_mmvp
from hub_datasets import make_hub
from places import BASE

from svco.basics.dist import World
from svco.basics.progress import silent
from svco.commands.evaluation.benchmarks import mmvp, pope, realworldqa, textvqa
from svco.commands.evaluation.generation import Question, ask
from svco.commands.harness.running import TASKS, Harness, run
from svco.data.pictures import decode_image
from svco.model.subject import load_subject

ENVIRONMENT = os.environ.get("SVCO_LMMS_EVAL")
pytestmark = pytest.mark.skipif(
    not ENVIRONMENT,
    reason="NOT TESTED: needs lmms-eval's own environment: bash launchers/install/lmms_eval.sh ENV, and SVCO_LMMS_EVAL=ENV",
)


def mean(marks):
    marks = list(marks)
    return sum(marks) / len(marks)


def as_mmvp(rows, answers, samples, folder):
    """By svco's own summary, of the letters that the harness reads: its rule for them is looser."""
    items = mmvp.read(make_mmvp(folder / "release", len(rows) // 2))
    marks = [sample["mmvp_accuracy"]["pred_letter"].lower() or None for sample in samples]
    lines = [
        {"key": item.name, "answer": answer, "right": item.right, "letter": mark, "authors_letter": mark}
        for item, answer, mark in zip(items, answers, marks, strict=True)
    ]
    return mmvp.summary(lines, False)["score"]


def first_letter(answer):
    found = re.match(r"[\(\s]*([A-Z])", answer.strip(), re.IGNORECASE)
    return found[1].upper() if found else ""


GRADES = {
    "mmvp": as_mmvp,
    "cv_bench": lambda rows, answers, *_: mean(
        first_letter(answer) == row["answer"].strip("()") for row, answer in zip(rows, answers)
    ),
    "realworldqa": lambda rows, answers, *_: mean(
        realworldqa.lmms_right(answer, row["answer"]) for row, answer in zip(rows, answers)
    ),
    "scienceqa": lambda rows, answers, *_: mean(
        answer.strip().lower() == "abc"[row["answer"]] for row, answer in zip(rows, answers)
    ),
    "textvqa": lambda rows, answers, *_: mean(
        textvqa.accuracy(answer, row["answers"]) for row, answer in zip(rows, answers)
    ),
    "pope": lambda rows, answers, *_: mean(
        pope.strict_word(answer) == row["answer"] for row, answer in zip(rows, answers)
    ),
}
"""Benchmark -> its figure from answers by the rule that both have: svco's own where it has the harness's rule."""


@pytest.mark.parametrize("ranks", [1, 2])
def test_its_answers_and_its_figures_are_ours(tmp_path, ranks):
    pytest.importorskip("pyarrow", reason="NOT TESTED: needs pyarrow: pip install 'svco[test]'")
    data = make_hub(tmp_path / "hub")
    oracle.make_adapter(BASE, tmp_path / "adapter")
    harness = Harness(Path(ENVIRONMENT), tmp_path / "hub", batch_size=4, ranks=ranks)
    told = run(harness, str(BASE), str(tmp_path / "adapter"), list(data), tmp_path / "out")["benchmarks"]
    subject = load_subject(str(BASE), str(tmp_path / "adapter"), device=World().device)
    for name, rows in data.items():
        (file,) = (tmp_path / "out").rglob(f"*_samples_{TASKS[name].name}.jsonl")
        samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        questions = [
            Question("q", sample["input"], partial(decode_image, row["image"], "a picture"))
            for sample, row in zip(samples, rows, strict=True)
        ]
        tokens = {"cv_bench": 1024, "textvqa": 1024, "pope": 128}.get(name, 16)
        ours = ask(subject, questions, World(), max_new_tokens=tokens, at_once=4, show=silent, what="asking")
        assert [sample["filtered_resps"] for sample in samples] == ours, name
        assert told[name]["questions"] == len(rows) and told[name]["empty"] == sum(not answer for answer in ours)
        assert told[name]["score"] == pytest.approx(GRADES[name](rows, ours, samples, tmp_path), abs=1e-9), name

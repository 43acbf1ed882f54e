"""MMVP and CV-Bench: releases read, answers read as letters, scores by the official formulas."""

import builtins
import json
import math

import pyarrow
import pytest
from benchmarks import cv_records, make_cv_bench, make_mmvp, picture
from pyarrow import parquet

from svco.basics.errors import UserError
from svco.commands.evaluation.benchmarks import cv_bench, mmvp
from svco.commands.evaluation.benchmarks.choices import SUFFIX, first_four, letter

OPTIONS = {"a": "Open", "b": "Closed", "c": "A door"}


@pytest.mark.parametrize(
    "answer, ours, authors",
    [
        ("A", "a", "a"),
        ("(b)", "b", "b"),
        ("(B) Closed", "b", "b"),
        ("b.", "b", None),
        ("B: it is closed", "b", None),
        ("C)", "c", "c"),
        ("Closed.", "b", None),
        ("The answer is (a)", "a", None),
        ("It looks like A. So the answer is: b.", "b", None),
        ("Answer: Open", "a", None),
        ("a door", "c", None),
        ("A door is what I see", None, None),
        ("A\n\nThe door is open.", None, None),
        ("d", None, None),
        ("ab", None, None),
        ("", None, None),
    ],
)
def test_which_option_an_answer_means(answer, ours, authors):
    assert letter(answer, OPTIONS) == ours
    assert first_four(answer, OPTIONS) == authors


def test_mmvp_as_it_is_released(tmp_path):
    items = mmvp.read(make_mmvp(tmp_path, 3))
    assert [item.name for item in items] == ["1", "2", "3", "4", "5", "6"]
    assert items[1].prompt + SUFFIX == (
        "Is the door, number 1, open or closed? (a) Open (b) Closed\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert items[1].options == {"a": "Open", "b": "Closed"} and [item.right for item in items] == list("ababab")
    assert items[4].image == tmp_path / "MMVP Images" / "5.jpg"


def lines(items, answers):
    return [
        {"key": item.name, "right": item.right, "answer": answer, **item.labels}
        | {"letter": letter(answer, item.options), "authors_letter": first_four(answer, item.options)}
        for item, answer in zip(items, answers, strict=True)
    ]


def test_mmvp_counts_pairs_and_not_neighbours(tmp_path):
    """Rows 2 and 3 both right are no pair; an answer that says no option is wrong, and counted."""
    found = lines(mmvp.read(make_mmvp(tmp_path, 3)), ["b", "b", "a", "who knows", "(a)", "B."])
    told = mmvp.summary(found, paper_compat=False)
    assert told["score"] == pytest.approx(1 / 3) == told["pair_accuracy"]["value"]
    assert told["question_accuracy"]["value"] == pytest.approx(4 / 6)
    assert (told["questions"], told["pairs"], told["unparseable"], told["empty"]) == (6, 3, 1, 0)
    theirs = mmvp.summary(found, paper_compat=True)  # "B." is no answer to the authors' grader
    assert theirs["score"] == 0 and theirs["unparseable"] == 2
    assert mmvp.summary(lines(mmvp.read(tmp_path), list("ababab")), False)["score"] == 1


def test_cv_bench_by_the_releases_formula(tmp_path):
    items = cv_bench.read(make_cv_bench(tmp_path))
    assert len(items) == 9 and items[0].options == {"a": "0", "b": "1", "c": "2"}
    assert all(item.image.is_file() for item in items)
    right = [item.right for item in items]
    answers = [right[0], "z", right[2], "", "z", *right[5:8], "z"]  # ADE20K 2 of 3, COCO 0 of 2, Omni3D 3 of 4
    told = cv_bench.summary(lines(items, answers), paper_compat=False)
    assert told["score"] == pytest.approx(((2 / 3 + 0) / 2 + 3 / 4) / 2)
    assert told["question_accuracy"]["value"] == pytest.approx(5 / 9) and told["score"] != pytest.approx(5 / 9)
    assert (told["unparseable"], told["empty"], told["questions"]) == (4, 1, 9)
    assert told["by_source"]["Omni3D"]["value"] == 0.75 and told["by_task"]["Depth"]["value"] == 1
    error = math.sqrt((0.25**2) * (2 / 9 / 2) + (0.5**2) * (0.75 * 0.25 / 3))
    assert told["combined_accuracy"]["se"] == pytest.approx(error)
    weighted = cv_bench.measures(lines(items, answers), False)["score"]  # what --against compares
    assert weighted.value == pytest.approx(told["score"])


def test_cv_bench_from_parquet_is_the_same(tmp_path):
    rows = [record | {"image": {"bytes": picture(record["idx"]), "path": None}} for record in cv_records()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test_2d.parquet")
    make_cv_bench(tmp_path / "lines")
    ours, theirs = cv_bench.read(tmp_path), cv_bench.read(tmp_path / "lines")
    assert [(item.prompt, item.options, item.right) for item in ours] == [
        (item.prompt, item.options, item.right) for item in theirs
    ]
    assert [item.image for item in ours] == [item.image.read_bytes() for item in theirs]


def test_parquet_that_is_none_is_said(tmp_path):
    (tmp_path / "test_2d.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"test_2d\.parquet cannot be read: .*parquet"):
        cv_bench.read(tmp_path)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "test_2d.parquet").write_bytes(b"")
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install pyarrow, or take"):
        cv_bench.read(tmp_path)


def _drop_picture(folder):
    (folder / "MMVP Images" / "3.jpg").unlink()


def _rewrite(folder, old, new):
    path = folder / "Questions.csv"
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    "damage, said",
    [
        (_drop_picture, "1 of the 6 images"),
        (lambda folder: _rewrite(folder, "Correct Answer", "Answer"), "no column Correct Answer"),
        (lambda folder: _rewrite(folder, "(b)\n", "(c)\n"), "Row 2"),
        (lambda folder: (folder / "Questions.csv").unlink(), "cannot be read"),
    ],
)
def test_what_is_not_mmvp_is_said(tmp_path, damage, said):
    damage(make_mmvp(tmp_path, 3))
    with pytest.raises(UserError, match=said):
        mmvp.read(tmp_path)


def test_what_is_not_cv_bench_is_said(tmp_path):
    with pytest.raises(UserError, match="neither test"):
        cv_bench.read(tmp_path)
    make_cv_bench(tmp_path)
    (tmp_path / "test_3d.jsonl").rename(tmp_path / "3d")
    with pytest.raises(UserError, match="no question from Omni3D"):
        cv_bench.read(tmp_path)
    (tmp_path / "test_2d.jsonl").write_text(json.dumps({"idx": 7, "source": "COCO"}) + "\n")
    with pytest.raises(UserError, match="idx 7. lacks task"):
        cv_bench.read(tmp_path)

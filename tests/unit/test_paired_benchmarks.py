"""Winoground, VisMin-Bench and NaturalBench: releases read, graders held against the official rules case by case."""

import itertools

import numpy as np
import pytest
from paired_benchmarks import (
    make_naturalbench,
    make_vismin_bench,
    make_winoground,
    make_winoground_parquet,
    naturalbench_rows,
    pairs,
)

from svco.basics.errors import UserError
from svco.commands.evaluation.benchmarks import naturalbench, naturalbench_generated, vismin_bench, winoground
from svco.commands.evaluation.benchmarks.naturalbench_generated import said
from svco.commands.evaluation.benchmarks.paired import CAPTION_QUERY, ItemSource
from svco.commands.evaluation.benchmarks.rows import picture_bytes


def shown(items):
    """What matters of the items: names, texts, and the pictures' bytes."""
    return [(item.name, item.query, item.responses, tuple(map(picture_bytes, item.images))) for item in items]


def test_winoground_from_lines_and_from_parquet_is_the_same(tmp_path):
    lines, table = make_winoground(tmp_path / "a"), make_winoground_parquet(tmp_path / "b")
    items = winoground.read(lines)
    made = [(f"{n}", CAPTION_QUERY, pair.text.responses, pair.images) for n, pair in enumerate(pairs(4))]
    assert shown(items) == made == shown(winoground.read(table))
    assert [item.labels["kind"] for item in items] == ["Object", "Relation"] * 2
    (lines / "data" / "examples.jsonl").rename(lines / "examples.jsonl")  # as others unpack it
    (lines / "data" / "images").rename(lines / "images")
    assert shown(winoground.read(lines)) == made


def test_vismin_bench_as_datasets_saves_it(tmp_path):
    items = vismin_bench.read(make_vismin_bench(tmp_path, 5))
    assert shown(items) == [
        (f"vismin-{n}", CAPTION_QUERY, pair.text.responses, pair.images) for n, pair in enumerate(pairs(5, 8))
    ]
    assert [item.labels["kind"] for item in items] == ["object", "attribute", "counting", "relation", "object"]


def test_a_question_of_naturalbench_is_a_pair_and_four_are_asked(tmp_path):
    items = naturalbench.read(make_naturalbench(tmp_path, 2))
    assert [item.name for item in items] == ["0-0", "0-1", "1-0", "1-1"]
    assert [item.responses for item in items] == [("Yes", "No"), ("No", "Yes"), ("A", "B"), ("B", "A")]
    (query, *_), images = [pair.text.query for pair in pairs(2, 16)], pairs(2, 16)[0].images
    assert items[0].query == f"{query} Please answer Yes or No."
    assert items[3].query.endswith("\nPlease output the letter corresponding to the correct option.")
    assert tuple(map(picture_bytes, items[1].images)) == images
    asked = naturalbench_generated.read(tmp_path)
    assert [(one.name, one.right) for one in asked[:4]] == [
        ("0-0-0", "Yes"), ("0-0-1", "No"), ("0-1-0", "No"), ("0-1-1", "Yes"),
    ]  # fmt: skip
    assert [picture_bytes(one.image) for one in asked[:4]] == [*images, *images]
    assert asked[0].query == items[0].query and asked[2].query == items[1].query


@pytest.mark.parametrize(
    "answer, yes_no, choice",
    [
        ("Yes", "Yes", None),
        ("no.", "No", None),
        ("Answer: **No**, and not yes", "No", None),
        ("I know nothing", None, None),  # no is a word there, not a part of one
        ("Nope", None, None),
        ("There is no doubt: yes", "No", None),  # the earlier word, whatever it means
        ("NO\nYES", "No", None),
        ("A", None, "A"),
        ("(b)", None, "B"),
        ("**B**", None, "B"),
        (r"\boxed{B}", None, "B"),
        ("Option: B: red", None, "B"),
        ("(A) is wrong. (B)", None, "A"),
        ("It shows a dog, so B", None, "A"),  # the article is the letter, by the official rule
        ("AB", None, None),
        ("yes_a", None, None),  # an underscore is part of a word
        ("", None, None),
    ],
)
def test_the_earlier_word_is_the_answer(answer, yes_no, choice):
    assert said(answer, "yes_no") == yes_no
    assert said(answer, "multiple_choice") == choice


def by_the_release(q0_i0, q0_i1, q1_i0, q1_i1):
    """The release's four figures of one sample whose answers are 1 for yes (A) and 0 for no (B), −1 for none."""
    cells = [q0_i0 == 1, q0_i1 == 0, q1_i0 == 0, q1_i1 == 1]
    images = [cells[0] and cells[2], cells[3] and cells[1]]
    questions = [cells[0] and cells[1], cells[3] and cells[2]]
    return [all(cells), sum(questions) / 2, sum(images) / 2, sum(cells) / 4]


def test_naturalbenchs_figures_over_all_answers_to_a_sample():
    asked = [("Yes", "0-0-0"), ("No", "0-0-1"), ("No", "0-1-0"), ("Yes", "0-1-1")]
    totals = []
    for answers in itertools.product((1, 0, -1), repeat=4):
        lines = [
            {"key": key, "right": right, "said": {1: "Yes", 0: "No", -1: None}[answer], "answer": "x", "asked": True}
            | {"kind": "yes_no", "source": ""}
            for (right, key), answer in zip(asked, answers, strict=True)
        ]
        told = naturalbench_generated.summary(lines, False)
        expected = by_the_release(*answers)
        assert [told[name]["value"] for name in ("g_acc", "q_acc", "i_acc", "acc")] == expected
        assert told["score"] == expected[0] and told["unparseable"] == answers.count(-1)
        totals.append(expected)
        # The same answers as likelihoods: −1 is a tie, which is right for neither.
        logps = np.zeros((2, 2, 3))
        for question, image in itertools.product((0, 1), (0, 1)):
            said_right = answers[2 * question + image] == (1 if question == image else 0)
            tie = answers[2 * question + image] == -1
            logps[question, image, 0] = 0.0 if tie else (0.5 if said_right else -0.5)
        found = naturalbench.summary(scored_lines(logps), False)
        assert [found[name]["value"] for name in ("g_acc", "q_acc", "i_acc", "acc")] == expected
    assert np.mean(totals, axis=0) == pytest.approx([1 / 81, 1 / 9, 1 / 9, 1 / 3])


def scored_lines(logps):
    """Lines of a benchmark of pairs with (N, 2, 3) log-probabilities; None for a pair without."""
    return [
        {
            "key": str(n),
            "logps": None if pair is None else np.asarray(pair).tolist(),
            "cut": n % 2,
            "kind": "abc"[n % 2],
        }
        for n, pair in enumerate(logps)
    ]


def test_captions_are_scored_as_winoground_does_and_what_has_no_score_is_wrong():
    right, text = [[-1, -9, -3], [-1, -9, -3]], [[-1, -9, -3], [-2, -9, -2]]  # a tie of the two images
    image = [[-1, -1, -2], [-3, -3.5, -4]]  # response 0 is the likelier whatever is seen
    lines = scored_lines([right, text, image, None])
    told = winoground.BENCHMARK.summary(lines, False)
    values = {name: told[name]["value"] for name in winoground.BENCHMARK.shown}
    assert values == {
        "pair_accuracy": 0.5, "image_accuracy": 0.5, "group_accuracy": 0.25,
        "pair_accuracy_corrected": 0.75, "group_accuracy_corrected": 0.5,
    }  # fmt: skip
    assert (told["score"], told["questions"], told["not_asked"], told["cut"]) == (0.25, 4, 1, 2)
    assert told["by_kind"]["a"]["pairs"] == 2 and told["by_kind"]["b"]["group_accuracy"]["value"] == 0
    assert winoground.BENCHMARK.measures(lines, False)["score"].value == told["score"]


def test_naturalbench_without_the_prior():
    """The language always says yes, the images only move it: a question is wrong for one image, and right without the prior."""
    moved = np.array([[[-1.0, -1.5, -2.0], [-4.0, -5.0, -6.0]], [[-4.0, -5.0, -6.0], [-1.0, -1.5, -2.0]]])
    told = naturalbench.summary(scored_lines(moved), False)
    assert told["g_acc"]["value"] == told["q_acc"]["value"] == 0 and told["acc"]["value"] == 0.5
    assert told["g_acc_corrected"]["value"] == told["image_accuracy"]["value"] == 1
    gone = naturalbench.summary(scored_lines([moved[0], None]), False)
    assert gone["g_acc_corrected"]["value"] == 0 and gone["acc"]["value"] == 0.25 and gone["not_asked"] == 1


def test_pictures_that_cannot_be_read_have_no_size(tmp_path):
    items = winoground.read(make_winoground(tmp_path, 2))
    items[1].images[0].write_bytes(b"torn")
    source = ItemSource(items)
    assert len(source) == 2 and source.key(1) == "1" and min(source.image_sizes(0)[1]) > 0
    assert source.image_sizes(1)[0] == (0, 0) and source.pixels(1) == ("", "image 1")


def _without(name):
    return [{key: value for key, value in row.items() if key != name} for row in naturalbench_rows(2)]


def _with(**changed):
    return [row | changed for row in naturalbench_rows(2)]


@pytest.mark.parametrize(
    "rows, told",
    [
        (_without("Image_1_Question_0"), "row 0 lacks Image_1_Question_0"),
        (_without("Question_Type"), "row 0 lacks Question_Type"),
        (_without("Image_1"), "row 0 lacks Image_1"),
        (_with(Question_Type="open"), "Question_Type is 'open'; NaturalBench's are yes_no, multiple_choice"),
        (_with(Image_0_Question_1="Yes"), "are 'Yes' and 'Yes'; of a yes_no question one is yes and one no"),
        (_with(Image_0_Question_0="maybe"), "'maybe' and 'No'"),
        (_with(Question_1=" "), "Question_1 is ' '; it must be text"),
        (_with(Image_0={"bytes": None, "path": "gone.jpg"}), "2 of the 4 images of .* are missing, e.g. .*gone.jpg"),
        (_with(Image_0={"bytes": None, "path": "../gone.jpg"}), "names the image '../gone.jpg', outside of"),
    ],
)
def test_what_is_not_naturalbench_is_said(tmp_path, rows, told):
    make_naturalbench(tmp_path, rows=rows)
    for benchmark in (naturalbench, naturalbench_generated):
        with pytest.raises(UserError, match=told):
            benchmark.read(tmp_path)


def test_what_is_not_winoground_or_vismin_bench_is_said(tmp_path):
    for benchmark in (winoground, vismin_bench, naturalbench):
        with pytest.raises(UserError, match=f"holds no file of the split .*{benchmark.NAME} is the folder"):
            benchmark.read(tmp_path)
    folder = make_winoground(tmp_path / "w", 2)
    images, lines = folder / "data" / "images", folder / "data" / "examples.jsonl"
    (images / "ex_1_img_0.png").rename(folder / "data" / "images.zip")
    with pytest.raises(
        UserError, match=r"1 of the 4 images .* missing, e\.g\. .*ex_1_img_0\.png.* Unpack .*images\.zip"
    ):
        winoground.read(folder)
    lines.write_text(lines.read_text().replace("caption_1", "caption"))
    with pytest.raises(UserError, match=r"examples\.jsonl, row 1 lacks caption_1"):
        winoground.read(folder)
    (make_vismin_bench(tmp_path / "v", 2) / "data/test/data-00000-of-00002.arrow").write_bytes(
        b"version https://git-lfs"
    )
    with pytest.raises(UserError, match=r"data-00000-of-00002\.arrow cannot be read: .*Git LFS"):
        vismin_bench.read(tmp_path / "v")

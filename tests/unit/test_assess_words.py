"""ScienceQA, RealWorldQA, TextVQA, POPE, HallusionBench: releases read, answers graded case by case as the official rules do."""

import json

import numpy as np
import pytest
from benchmarks import (
    hallusion_rows,
    make_hallusionbench,
    make_pope,
    make_realworldqa,
    make_scienceqa,
    make_textvqa,
    parquet,
    picture,
    scienceqa_problems,
)
from hypothesis import given
from hypothesis import strategies as st

from svco.basics.errors import UserError
from svco.commands.evaluation.benchmarks import hallusionbench, pope, realworldqa, scienceqa, textvqa, textvqa_ocr
from svco.commands.evaluation.benchmarks.choices import SUFFIX, letter
from svco.commands.evaluation.benchmarks.rows import picture_bytes
from svco.scores.statistics import compare, estimate

OPTIONS = {"a": "Open", "b": "Closed", "c": "A door"}


@given(
    st.sampled_from("abc"),
    st.sampled_from(
        ["{}", "({})", "[{}]", "{}.", "{})", "({}) {text}", "{}. {text}", "{}: {text}", "{text}", "{text}."]
    ),
    st.sampled_from(["{}", "**{}**", "*{}*", "`{}`", '"{}"', "__{}__", "$\\boxed{{{}}}$", "<answer>{}</answer>"]),
    st.sampled_from(
        ["", "Answer: ", "**Answer:** ", "The answer is ", "(A) is wrong. ", "A isn't it.\n", "(C) cannot be; no. "]
    ),
    st.booleans(),
)
def test_a_letter_is_seen_however_it_is_dressed(key, form, dress, before, capital):
    said = form.format(key.upper() if capital else key, text=OPTIONS[key])
    assert letter(before + dress.format(said), OPTIONS) == key


@pytest.mark.parametrize(
    "answer, meant",
    [
        ("**B**", "b"),
        ("\\boxed{B}", "b"),
        ("So it is $\\boxed{\\text{(C)}}$, not A.", "c"),
        ("(A) is wrong. (B)", "b"),
        ("(A) is wrong. (B) is right.", "b"),
        ("(A) is wrong.", None),
        ("A. Open", "a"),
        ("A. B", "a"),
        ("(a) Open (b) Closed", "a"),
        ("The door is shut, I think.\nB", "b"),
        ("*A door* is what I see", None),
    ],
)
def test_which_of_several_letters_counts(answer, meant):
    assert letter(answer, OPTIONS) == meant


@pytest.mark.parametrize(
    "answer, ours, llava, authors",
    [
        ("B", "b", "b", "b"),
        ("b. cat", "b", None, "b"),
        ("B. cat", "b", "b", "b"),
        ("B.", "b", None, "b"),
        ("(B) cat", "b", None, None),
        ("I think. The answer is B.", "b", "b", None),
        ("Answer: B", "b", None, "a"),  # the authors' grader takes the first letter there is
        ("cat", "b", None, None),
        ("**B**", "b", None, None),
        ("", None, None, None),
    ],
)
def test_scienceqa_letters(answer, ours, llava, authors):
    options = {"a": "run", "b": "cat"}
    found = letter(answer, options), scienceqa.llava_letter(answer), scienceqa.first_letter(answer, options)
    assert found == (ours, llava, authors)


def answered(benchmark, items, answers, **more):
    """The lines of ``answers``; None: the question could not be asked."""
    said = iter(answers)

    def say(what, questions, asking):
        assert len(questions) == len(answers)
        return [
            {"key": question.key, "query": question.query, "answer": answer or "", "asked": answer is not None}
            for question, answer in zip(questions, said)
        ]

    return say


@pytest.fixture
def lines(monkeypatch):
    """(module, items, answers) -> the lines of the answers file, with these answers in the model's place."""

    def make(module, items, answers, ask=None):
        for place in ("svco.commands.evaluation.benchmarks.choices", module.__name__):
            monkeypatch.setattr(f"{place}.say", answered(module, items, answers), raising=False)
        return (ask or module.BENCHMARK.answer)(items, None)

    return make


def test_scienceqa_scores_questions_with_a_picture_and_the_authors_all(tmp_path, lines):
    items = scienceqa.read(make_scienceqa(tmp_path))
    assert [(item.name, item.right, item.image is None) for item in items] == [
        ("11", "a", False),
        ("12", "b", True),
        ("13", "b", False),
    ]
    assert items[2].prompt + SUFFIX == (
        "Context: See the map.\nWhich is north?\nA. A\nB. B\nAnswer with the option's letter from the given choices directly."
    )
    told = lines(scienceqa, items, ["A", "B", None])
    ours, theirs = (scienceqa.summary(told, compat) for compat in (False, True))
    assert (ours["score"], ours["question_accuracy"]["value"], ours["with_image"]) == (0.5, pytest.approx(2 / 3), 2)
    assert theirs["score"] == pytest.approx(2 / 3) and "S-VCO" in theirs["rule"]
    assert (ours["unparseable"], ours["empty"], ours["not_asked"]) == (1, 1, 1)
    assert ours["llava_accuracy"]["value"] == 0.5
    assert ours["by_kind"].keys() == {"natural science", "social science"}


def test_scienceqa_of_the_hub_is_the_same(tmp_path):
    """The hub's clone holds the questions with a picture beside the whole: they are not asked twice."""
    make_scienceqa(tmp_path / "release")
    rows = [
        problem | {"image": {"bytes": picture(int(key)), "path": None} if problem["image"] else None}
        for key, problem in scienceqa_problems().items()
        if problem["split"] == "test"
    ]
    parquet(tmp_path / "hub/ScienceQA-FULL/test-00000-of-00001.parquet", rows)
    parquet(tmp_path / "hub/ScienceQA-IMG/test-00000-of-00001.parquet", [rows[0], rows[2]])
    release, hub = (scienceqa.read(tmp_path / name) for name in ("release", "hub"))
    told = [
        [(i.prompt, i.options, i.right, i.image and picture_bytes(i.image)) for i in items] for items in (release, hub)
    ]
    assert told[1] == [told[0][0], told[0][2]]
    whole = scienceqa.read(tmp_path / "hub/ScienceQA-FULL")
    assert [(i.prompt, i.image and picture_bytes(i.image)) for i in whole] == [(t[0], t[3]) for t in told[0]]


@pytest.mark.parametrize(
    "answer, found",
    [
        ("B", "B"),
        ("b", ""),  # capitals alone
        ("(B) Right", "B"),
        ("B. Right", "B"),
        ("The answer is (C).", "C"),
        ("A is wrong, B", "A"),  # the start counts for more than the end
        ("It is A: no, it is D", "D"),
        ("Between (A) and (B)", "B"),
        ("A car", "A"),
        ("Apple", "A"),
        ("maybe", ""),
        ("'C'", "C"),
        ("", ""),
    ],
)
def test_realworldqa_letters_as_lmms_eval_finds_them(answer, found):
    assert realworldqa.lmms_letter(answer) == found


@pytest.mark.parametrize(
    "right, answer, lmms, exact, authors",
    [
        ("B", "B", True, True, True),
        ("B", "B.", True, True, True),
        ("B", "(B)", True, False, True),
        ("B", "(B) Right", True, False, True),
        ("B", "B. Right", True, False, False),
        ("B", "The answer is B", True, False, False),
        ("B", "b", False, True, True),
        ("Yes", "yes.", True, True, True),
        ("Yes", "Yes, it is", False, False, False),
        ("3", "3", True, True, True),
        ("3", " (3) ", False, False, True),
        ("3", "three", False, False, False),
    ],
)
def test_realworldqa_grades(right, answer, lmms, exact, authors):
    asked = f"Which? {realworldqa._BY_LETTER}." if right == "B" else "How many?"
    assert realworldqa.lmms_right(answer, right) is lmms
    assert realworldqa.exactly(answer, right) is exact
    assert realworldqa.authors_right(asked, answer, right) is authors


def test_realworldqa_as_it_is_released_and_as_it_was(tmp_path, lines):
    items = realworldqa.read(make_realworldqa(tmp_path / "hub"))
    assert [(item.right, picture_bytes(item.image)) for item in items] == [
        ("B", picture(0)),
        ("Yes", picture(1)),
        ("3", picture(2)),
    ]
    (tmp_path / "zip/images").mkdir(parents=True)
    (tmp_path / "zip/images/0.webp").write_bytes(picture(0))
    row = {"image": "0.webp", "question": f"{items[0].prompt} ", "answer": "B"}
    (tmp_path / "zip/annotations.json").write_text(json.dumps([row]))
    (again,) = realworldqa.read(tmp_path / "zip")
    assert (again.prompt, again.right) == (items[0].prompt, "B")
    told = lines(realworldqa, items, ["B. Right", "no", None])
    ours, theirs = (realworldqa.summary(told, compat) for compat in (False, True))
    assert (ours["score"], ours["exact"]["value"], ours["letters"]["value"]) == (pytest.approx(1 / 3), 0, 1)
    assert theirs["score"] == 0 and (ours["empty"], ours["not_asked"], ours["unparseable"]) == (1, 1, 0)


@pytest.mark.parametrize(
    "answer, plain",
    [
        ("The Dakota Digital", "dakota digital"),
        ("two", "2"),
        ("None", "0"),
        ("1,000", "1000"),
        ("3.50", "3.50"),
        ("end.", "end"),
        ("U.S.A.", "usa"),
        ("co-op", "co op"),
        ("a - b", "b"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("Bo's", "bo 's"),
        ("what?\n", "what"),
        ("$5/day", "$5 day"),
        ("10:30", "10:30"),
        ("  ", ""),
    ],
)
def test_textvqa_answers_as_evalai_compares_them(answer, plain):
    assert textvqa.normalised(answer) == plain


@pytest.mark.parametrize("same, score", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_leaves_each_person_out(same, score):
    """With n who said it: n of ten comparisons see n − 1 of them, the rest see n."""
    answers = ["the cat"] * same + [f"other {number}" for number in range(10 - same)]
    assert textvqa.accuracy("Cat.", answers) == pytest.approx(score)
    assert textvqa.accuracy("dog", answers) == 0


def test_textvqa_with_and_without_ocr_tokens(tmp_path, lines):
    folder = make_textvqa(tmp_path)
    bare, shown = textvqa.BENCHMARK.read(folder), textvqa_ocr.BENCHMARK.read(folder)
    assert bare[2].prompt == "Who drives bo's car?\nAnswer the question using a single word or phrase."
    assert shown[0].prompt == (
        "What is the brand?\nReference OCR token: DAKOTA, 2\nAnswer the question using a single word or phrase."
    )
    assert shown[2].prompt.split("\n")[1] == "Reference OCR token: "
    llava = [{"question_id": "p0", "text": shown[0].prompt.replace("2", "3")}]
    (folder / "llava_textvqa_val_v051_ocr.jsonl").write_text(json.dumps(llava[0]) + "\n")
    with pytest.raises(UserError, match="question 1 has no OCR tokens"):
        textvqa_ocr.BENCHMARK.read(folder)
    (folder / "llava_textvqa_val_v051_ocr.jsonl").unlink()
    told = lines(textvqa, bare, ["Dakota.", "two", None])
    found = textvqa.BENCHMARK.summary(told, False)
    assert found["score"] == pytest.approx(2 / 3) and "without OCR" in found["rule"]
    assert "with OCR" in textvqa_ocr.BENCHMARK.summary(told, True)["rule"]
    assert len(textvqa.measures(told, False)["score"].numerator) == 2  # pictures are what was drawn
    assert (found["empty"], found["not_asked"]) == (1, 1) and "unparseable" not in found


def test_textvqa_of_the_hub(tmp_path):
    rows = [
        {"image_id": "p0", "question_id": 1, "question": "what?", "answers": ["a"] * 10, "ocr_tokens": ["X", "Y"]}
        | {"image": {"bytes": picture(3), "path": None}}
    ]
    parquet(tmp_path / "data/validation-00000-of-00001.parquet", rows)
    (item,) = textvqa_ocr.BENCHMARK.read(tmp_path)
    assert "token: X, Y\n" in item.prompt and picture_bytes(item.image) == picture(3)
    parquet(tmp_path / "data/validation-00000-of-00001.parquet", [rows[0] | {"answers": ["a"] * 9}])
    with pytest.raises(UserError, match="row 0 has 9 answers; TextVQA's have 10"):
        textvqa.BENCHMARK.read(tmp_path)


@pytest.mark.parametrize(
    "answer, official, strict",
    [
        ("Yes", "yes", "yes"),
        ("no", "no", "no"),
        ("No, there is not.", "no", None),
        ("There is not a car", "no", None),
        ("NO", "yes", "no"),  # POPE's own rule knows No and no alone
        ("Yes. There is no car", "yes", None),  # the first sentence alone counts
        ("nothing", "yes", None),
        ("", "yes", None),
    ],
)
def test_pope_words(answer, official, strict):
    assert (pope.official_word(answer), pope.strict_word(answer)) == (official, strict)


def test_pope_by_hand(tmp_path, lines):
    items = pope.read(make_pope(tmp_path))
    assert [item.key for item in items[:3]] == ["random 1", "random 2", "popular 1"]
    assert items[0].question == "Is there a wall in the image?" and [item.right for item in items] == ["yes", "no"] * 3
    told = lines(pope, items, ["yes", "no", "yes", "Yes", "No", None])
    found = pope.summary(told, False)
    # random: all right; popular: one of two yes is right; adversarial: none, as what could not be asked is wrong
    f1 = [found["by_kind"][name]["f1"]["value"] for name in pope.SUBSETS]
    assert f1 == [pytest.approx(1), pytest.approx(2 / 3), pytest.approx(0)]
    assert found["score"] == pytest.approx(np.mean(f1))
    assert (found["precision"]["value"], found["recall"]["value"], found["yes"]["value"]) == (
        0.5,
        pytest.approx(2 / 3),
        4 / 6,
    )
    assert (found["question_accuracy"]["value"], found["strict_accuracy"]["value"]) == (
        pytest.approx(0.5),
        pytest.approx(0.5),
    )
    assert (found["unparseable"], found["empty"], found["not_asked"]) == (1, 1, 1)


def test_pope_errors_are_the_jackknifes():
    """The linearised error of a mean of three ratios, over pictures, against leaving each picture out."""
    random = np.random.default_rng(3)
    told = [
        {
            "subset": name,
            "image_id": str(n // 2),
            "right": right,
            "said": right if random.random() < 0.8 else "no",
            "strict": None,
        }
        for name in pope.SUBSETS
        for n, right in enumerate(["yes", "no"] * 60)
    ]
    score = pope.measures(told, False)["score"]
    left = [
        pope.measures([line for line in told if line["image_id"] != str(n)], False)["score"].value for n in range(60)
    ]
    assert estimate(score).se == pytest.approx(np.sqrt(59 * np.var(left)), rel=0.05)
    worse = [line | {"said": "yes"} for line in told]
    apart = compare(pope.measures(told, False), pope.measures(worse, False))
    assert apart["score"].difference.value == pytest.approx(score.value - pope.measures(worse, False)["score"].value)


def test_pope_of_the_hub(tmp_path):
    rows = [
        {"question_id": str(n), "question": "Is there?", "answer": "no", "image_source": "COCO_1", "category": subset}
        | {"image": {"bytes": picture(n), "path": None}}
        for n, subset in enumerate(pope.SUBSETS)
    ]
    parquet(tmp_path / "whole/data/test-00000-of-00001.parquet", rows)
    for row in rows:
        parquet(tmp_path / f"full/Full/{row['category']}-00000-of-00001.parquet", [row])
    told = [
        [(i.key, i.image_id, picture_bytes(i.image)) for i in pope.read(tmp_path / name)] for name in ("whole", "full")
    ]
    assert told[0] == told[1] and [subset.split()[0] for subset, _, _ in told[0]] == list(pope.SUBSETS)
    (tmp_path / "full/Full/popular-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="no question of the subset popular"):
        pope.read(tmp_path / "full")


@pytest.mark.parametrize(
    "answer, word",
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("No, it is not", "no"),
        ("**Yes**, they are", "yes"),
        ("yes/no", None),
        ("I do not know", None),
        ("nobody", None),
        ("", None),
    ],
)
def test_hallusionbench_words(answer, word):
    assert hallusionbench.yes_or_no(answer) == word


def test_hallusionbench_by_hand(tmp_path, lines):
    items = hallusionbench.read(make_hallusionbench(tmp_path))
    assert [item.image is None for item in items] == [True, True, False, False, False, False]
    told = lines(hallusionbench, items, ["I cannot say", "", "no", "yes", "yes", None])
    found = hallusionbench.summary(told, False)
    # Not knowing is right without the chart, saying nothing is not; the last could not be asked.
    assert hallusionbench.right_ones(told).tolist() == [True, False, True, True, True, False]
    assert found["score"] == pytest.approx(4 / 6) and found["image_accuracy"]["value"] == pytest.approx(3 / 4)
    assert found["qAcc"]["value"] == pytest.approx(1 / 3)  # chart 0: both right; chart 1, illusion 0: one of two
    assert found["fAcc"]["value"] == pytest.approx(
        2 / 3
    )  # chart 0_1 and illusion 0_0, not 0_1; no figure without a picture
    assert (found["unparseable"], found["empty"], found["not_asked"], found["with_image"]) == (3, 2, 1, 4)
    asked = told[4] | {"answer": "I cannot say", "said": None}
    assert not hallusionbench.right_ones([asked])[0]  # with a picture not knowing is wrong


def test_hallusionbench_of_the_hub_is_the_same(tmp_path):
    for split, seen in (("image", True), ("non_image", False)):
        rows = [
            row | ({"image": {"bytes": picture(0), "path": None}} if seen else {})
            for row in hallusion_rows()
            if bool(row["filename"]) is seen
        ]
        parquet(tmp_path / f"hub/data/{split}-00000-of-00001.parquet", rows)
    release = hallusionbench.read(make_hallusionbench(tmp_path / "release"))
    hub = hallusionbench.read(tmp_path / "hub")
    assert {(i.key, i.question, i.right) for i in hub} == {(i.key, i.question, i.right) for i in release}
    (tmp_path / "hub/data/non_image-00000-of-00001.parquet").unlink()
    assert len(hallusionbench.read(tmp_path / "hub")) == 4


def _rewrite(name, old, new):
    def damage(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    "module, make, damage, said",
    [
        (
            scienceqa,
            make_scienceqa,
            _rewrite("problems.json", '"answer": 0', '"answer": 2'),
            "problem 11: the answer 2 is no place",
        ),
        (scienceqa, make_scienceqa, _rewrite("problems.json", '"choices"', '"options"'), "problem 11 lacks choices"),
        (scienceqa, make_scienceqa, lambda f: (f / "images/test/13/image.png").unlink(), "1 of the 3 images"),
        (scienceqa, make_scienceqa, lambda f: (f / "problems.json").unlink(), "no file of the split 'test'"),
        (
            realworldqa,
            make_realworldqa,
            lambda f: (f / "data/test-00000-of-00001.parquet").unlink(),
            "no file of the split",
        ),
        (textvqa, make_textvqa, _rewrite("TextVQA_0.5.1_val.json", '"answers"', '"said"'), "question 0 lacks answers"),
        (textvqa, make_textvqa, _rewrite("TextVQA_0.5.1_val.json", '"data"', '"date"'), "has no list 'data'"),
        (textvqa, make_textvqa, lambda f: (f / "train_images/p1.jpg").unlink(), "1 of the 3 images"),
        (
            pope,
            make_pope,
            _rewrite("coco_pope_popular.json", '"yes"', '"perhaps"'),
            "answer 'perhaps', subset 'popular'",
        ),
        (pope, make_pope, _rewrite("coco_pope_popular.json", '"label"', '"lab"'), "popular.json, line 1 lacks answer"),
        (pope, make_pope, lambda f: (f / "coco_pope_random.json").unlink(), "no question of the subset random"),
        (pope, make_pope, lambda f: (f / "val2014/COCO_val2014_000000000001.jpg").unlink(), "6 of the 6 images"),
        (hallusionbench, make_hallusionbench, _rewrite("HallusionBench.json", '"VD"', '"VX"'), "category 'VX'"),
        (
            hallusionbench,
            make_hallusionbench,
            _rewrite("HallusionBench.json", '"question_id": "1"', '"question_id": "0"'),
            "twice",
        ),
        (
            hallusionbench,
            make_hallusionbench,
            _rewrite("HallusionBench.json", "./VS", "../VS"),
            "names the image '../VS",
        ),
    ],
)
def test_what_is_wrong_with_a_release_is_said(tmp_path, module, make, damage, said):
    module.read(make(tmp_path))
    damage(tmp_path)
    with pytest.raises(UserError, match=said):
        module.read(tmp_path)

"""`svco judge`: releases read, judgements read, figured and compared, through an endpoint on loopback that misbehaves."""

import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest
from endpoint_server import KEY, Server
from hypothesis import given
from hypothesis import strategies as st
from judged import MAKERS, TYPES, answered, judging

from svco import cli
from svco.basics.errors import UserError
from svco.commands.evaluation.benchmarks.table import BENCHMARKS
from svco.commands.judge.rules import FOLDER, read_rule
from svco.scores.agreement import agreement

JUDGED = list(MAKERS)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    return {name: make(folder / name) for name, make in MAKERS.items()}


def grade(number):
    """Answers with a grade in them, another for every question; the sixth's image could not be read."""

    def answer(benchmark, item):
        place = int(item.name.removeprefix("v1_"))
        return None if place == 5 else f"Grade {(place + number) % 7}"

    return answer


@pytest.fixture
def place(tmp_path, monkeypatch, releases):
    """Two evaluations and ``judge(...)`` of them, through a judge on loopback."""
    pytest.importorskip("openai", reason="NOT TESTED: needs openai: pip install 'svco[endpoint]'")
    answered(tmp_path / "a", "A", releases, grade(0))
    answered(tmp_path / "b", "B", releases, grade(2))
    found = json.loads((tmp_path / "a" / "eval.json").read_text())
    empty = {"folder": str(tmp_path / "b"), "name": "B", "sets": {}, "benchmarks": {}}
    (tmp_path / "a" / "eval.json").write_text(json.dumps(found | {"against": {"B": empty}}))
    monkeypatch.chdir(tmp_path)

    def judge(*words):
        monkeypatch.setattr(sys, "argv", ["svco", "judge", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code

    def told(folder, name=None):
        found = json.loads((tmp_path / folder / "eval.json").read_text())
        return found["benchmarks"][name] if name else found

    with Server(judging) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield SimpleNamespace(folder=tmp_path, judge=judge, server=server, told=told)


def test_releases_are_read(releases):
    mmhal, mm_vet, llava = (BENCHMARKS[name].read(releases[name]) for name in JUDGED)
    assert [item.labels["type"] for item in mmhal] == list(TYPES)
    assert mmhal[2].labels["contents"] == "Car, Wheel" and mmhal[2].image.name == "00002_o.jpg"
    assert (mm_vet[1].labels["reference"], mm_vet[1].labels["capability"]) == ("-1 <AND> -5", "ocr, math")
    assert [item.labels["category"] for item in llava] == ["conv", "detail", "complex", "conv"]
    assert llava[3].labels["context"] == "A car in 002.jpg." and llava[3].image.name == "002.jpg"


def _swap(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("mmhal", lambda f: (f / "response_template.json").unlink(), "mmhal is the folder of MMHal-Bench's release"),
        ("mmhal", _swap("response_template.json", "gt_answer", "answer"), "Question 0 of .* lacks gt_answer"),
        ("mmhal", lambda f: (f / "images" / "00003_o.jpg").unlink(), "1 of the 8 images"),
        ("mmhal", _swap("response_template.json", '"image_content": [', '"image_content": 5, "x": ['), "is no list"),
        ("mm_vet", _swap("mm-vet.json", '"capability": [', '"capability": 5, "x": ['), "capability is no list"),
        ("mm_vet", _swap("mm-vet.json", "v1_0.png", "../v1_0.png"), "outside of images"),
        ("mm_vet", _swap("mm-vet.json", '"capability"', '"ability"'), "Question v1_0 of .* lacks capability"),
        (
            "llava_bench_w",
            _swap("questions.jsonl", '"category"', '"kind"'),
            r"questions\.jsonl, line 1, lacks category",
        ),
        ("llava_bench_w", _swap("answers_gpt4.jsonl", '"question_id": 0', '"question_id": 9'), "no reference answer"),
        ("llava_bench_w", lambda f: (f / "context.jsonl").write_text(""), r"context\.jsonl is empty"),
    ],
)
def test_what_is_no_release_is_said(tmp_path, releases, name, damage, said):
    shutil.copytree(releases[name], tmp_path / name)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=said):
        BENCHMARKS[name].read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "reply", "values"),
    [
        ("mmhal", "The car is blue.\n\nRating: 2", {"rating": 2}),
        ("mmhal", "**Rating: 6**, for it is good", {"rating": 6}),
        ("mmhal", "I give it rating: 3. So: Rating: 3", {"rating": 3}),
        ("mmhal", "Rating: 3 or Rating: 4", "judgements that differ"),
        ("mmhal", "Rating: 7", "no judgement"),
        ("mmhal", "Rating: 3.5", "no judgement"),
        ("mmhal", "Rating: 10", "no judgement"),
        ("mmhal", "", "no judgement"),
        ("mm_vet", "0.7", {"score": 0.7}),
        ("mm_vet", " 1.0 |\n", {"score": 1}),
        ("mm_vet", "Correctness: 0.0", {"score": 0}),
        ("mm_vet", "1.5", "no judgement"),
        ("mm_vet", "-0.5", "no judgement"),
        ("mm_vet", "0.5 of the answer is right", "no judgement"),
        ("llava_bench_w", "8 5.5\nThe first is better.", {"reference": 8, "model": 5.5}),
        ("llava_bench_w", "10, 10\n", {"reference": 10, "model": 10}),
        ("llava_bench_w", "The first answer: 8\nThe second: 5", "no judgement"),
        ("llava_bench_w", "8\n5", "no judgement"),
        ("llava_bench_w", "0 5", "no judgement"),
        ("llava_bench_w", "8 11", "no judgement"),
    ],
)
def test_what_a_judge_says(name, reply, values):
    rule = read_rule(name, BENCHMARKS[name].judging)
    if isinstance(values, dict):
        assert rule.read(reply) == values
    else:
        with pytest.raises(ValueError, match=values):
            rule.read(reply)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("(?P<rating>[0-6])", "([0-6])", "named groups"),
        ("(?P<rating>[0-6])", "(?P<rating>[0-6]", "no regular expression"),
        ("$contents", "them", r"says nothing of \$contents"),
        ("$contents", "$contents $cotnents", r"\$cotnents is none of \$question"),
        ("parameters:", "parametres:", "Did you mean 'parameters'"),
        ("{temperature: 0,", "{model: x,", "parameters must not set model"),
    ],
)
def test_a_prompt_that_is_none_is_said(tmp_path, old, new, said):
    text = (FOLDER / "mmhal.yaml").read_text()
    head, _, body = text.partition("\nuser:")
    (tmp_path / "p.yaml").write_text("user:" + body.replace(old, new))
    assert head and old in body
    with pytest.raises(UserError, match=said):
        read_rule("mmhal", BENCHMARKS["mmhal"].judging, tmp_path / "p.yaml")


@pytest.mark.parametrize(
    "change",
    [
        lambda line: [],
        lambda line: line | {"judge": None},
        lambda line: line | {"judge": line["judge"] | {"dollars": ["2"]}},
        lambda line: line | {"judgements": [{"values": {"rating": "6"}}]},
        lambda line: {"key": line["key"]},
    ],
)
def test_judgements_that_are_damaged_are_said(place, capsys, change):
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal") == 0
    path = place.folder / "a" / "mmhal.judged.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(change(json.loads(first))), *rest]) + "\n")
    capsys.readouterr()
    assert place.judge("a", "--model", "m", "--yes") == 2
    assert "which is no judgement. Delete that file and judge again" in capsys.readouterr().err
    path.unlink()
    asked = len(place.server.bodies)
    assert place.judge("a", "--model", "m", "--benchmark", "mmhal") == 0 and len(place.server.bodies) == asked


def test_said_first_then_judged_then_known(place, capsys):
    assert place.judge("a", "--model", "gpt-4o") == 2
    told = capsys.readouterr()
    assert "requests: 15" in told.out and "$" in told.out and "Nothing was asked. Add --yes" in told.err
    assert not place.server.bodies and not (place.folder / "a" / "mmhal.judged.jsonl").exists()
    place.server.misbehave = ["429", "500", "html", "malformed", "cut", "empty"]
    assert place.judge("a", "--model", "gpt-4o", "--yes") == 0
    said = capsys.readouterr().out
    assert "MM-Vet: 15.0%; judged by gpt-4o-as-served (asked as gpt-4o), prompt mm_vet " in said

    mmhal = place.told("a", "mmhal")
    ratings = [0, 1, 2, 3, 4, 6, 0]  # of the questions that were asked, which the sixth was not
    assert mmhal["score"] == pytest.approx(sum(ratings) / 7) == mmhal["rating"]["value"]
    assert mmhal["hallucination"]["value"] == pytest.approx(4 / 7)
    assert (mmhal["questions"], mmhal["judged"], mmhal["not_asked"], mmhal["failed"]) == (8, 7, 1, 0)
    assert mmhal["by_type"]["counting"]["score"]["value"] == 3 and mmhal["by_type"]["environment"] == {"questions": 1}
    vet, llava = place.told("a", "mm_vet"), place.told("a", "llava_bench_w")
    assert vet["score"] == pytest.approx((0 + 0.1 + 0.2 + 0.3) / 4) and vet["by_capability"]["math"]["questions"] == 2
    assert llava["score"] == pytest.approx((1 + 2 + 3 + 4) / 32) and llava["by_category"]["conv"]["questions"] == 2
    judge = mmhal["judge"]
    assert (judge["asked"], judge["answered"]) == ("gpt-4o", ["gpt-4o-as-served"]) and len(judge["prompt_sha256"]) == 64
    assert judge["cost"] == pytest.approx(7 * (100 * 2.5 + 10 * 10) / 1e6), "tokens as the endpoint counts them"
    page = (place.folder / "a" / "eval.md").read_text()
    for word in (
        "gpt-4o-as-served (asked as gpt-4o)",
        judge["prompt_sha256"][:12],
        judge["first"][:10],
        "$0.00",
        "adversarial",
    ):
        assert word in page, word
    before = len(place.server.bodies)
    assert place.judge("a", "--model", "gpt-4o") == 0, "what is known needs no yes"
    assert len(place.server.bodies) == before and place.told("a", "mmhal") == mmhal


def test_several_judgements_and_their_agreement(place):
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal") == 0
    asked = len(place.server.bodies)
    assert asked == 7 and place.told("a", "mmhal")["agreement"]["units"] == 0
    turns = iter(range(99))
    place.server.say = lambda body: f"Rating: {(2, 4)[next(turns) % 2]}"
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal", "--judgements", 3, "--at-once", 1) == 0
    assert len(place.server.bodies) == asked + 14, "the first of each is known"
    told = place.told("a", "mmhal")
    first = [0, 1, 2, 3, 4, 6, 0]
    expected = agreement([[value, 2, 4] for value in first])
    assert told["judgements"] == 21 and told["agreement"]["alpha"] == pytest.approx(expected.alpha)
    assert told["score"] == pytest.approx(sum(value + 6 for value in first) / 21)
    assert told["hallucination"]["value"] == pytest.approx(sum(((value < 3) + 1) / 3 for value in first) / 7)
    page = (place.folder / "a" / "eval.md").read_text()
    assert "3 judgements a question" in page and f"{expected.apart:.2f} of 6 apart" in page


def test_what_cannot_be_read_is_asked_for_again_then_left_out_and_said(place, capsys):
    bad = "What colour is car 2?"
    place.server.say = lambda body: "I would rather not." if bad in str(body) else judging(body)
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal") == 1
    out = capsys.readouterr().out
    assert "1 of 7 judgements are lacking" in out and "no judgement in 'I would rather not.'" in out
    assert len(place.server.bodies) == 8, "twice"
    told = place.told("a", "mmhal")
    assert (told["judged"], told["failed"]) == (6, 1) and told["score"] == pytest.approx(14 / 6)
    assert "leave out 2 questions that have no judgement" in (place.folder / "a" / "eval.md").read_text()
    place.server.say = judging
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal") == 1, "those replies are known"
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal", "--turns", 3) == 0
    assert len(place.server.bodies) == 9 and place.told("a", "mmhal")["score"] == pytest.approx(16 / 7)


def test_an_endpoint_that_fails_half_way_costs_nothing_twice(place, capsys):
    place.server.misbehave = ["well"] * 5 + ["400"] * 30
    assert place.judge("a", "--model", "m", "--yes", "--at-once", 1) == 2
    assert "8 requests in a row brought no reply" in capsys.readouterr().err
    assert place.told("a", "mmhal")["judged"] == 0, "no figure of half a benchmark"
    place.server.misbehave = []
    before = len(place.server.bodies)
    assert place.judge("a", "--model", "m", "--yes", "--at-once", 1) == 0
    assert len(place.server.bodies) - before <= 12, "five were known"


def test_judged_figures_are_compared_pair_by_pair_under_one_judge(place):
    assert place.judge("b", "a", "--model", "m", "--yes", "--benchmark", "mmhal") == 0
    (comparison,) = [place.told("a")["against"]["B"]["benchmarks"]["mmhal"]["score"]]
    ours, theirs = [0, 1, 2, 3, 4, 6, 0], [2, 3, 4, 5, 6, 1, 2]
    gaps = [a - b for a, b in zip(ours, theirs)]
    mean = sum(gaps) / 7
    assert comparison["value"] == pytest.approx(mean) and comparison["a"] == pytest.approx(16 / 7)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 7)  # over 8 questions, of which one does not count
    assert comparison["se"] == pytest.approx(spread * (8 / 7) / math.sqrt(8))
    page = (place.folder / "a" / "eval.md").read_text()
    assert f"{mean:+.3f}" in page
    # Another prompt is another judge.
    text = (FOLDER / "mmhal.yaml").read_text()
    (place.folder / "mine.yaml").write_text(text.replace("Explain in a few", "Tell in a few"))
    assert place.judge("a", "--model", "m", "--yes", "--benchmark", "mmhal", "--prompts", "mmhal=mine.yaml") == 0
    against = place.told("a")["against"]["B"]
    assert "mmhal" not in against["benchmarks"] and "another judge" in against["not_compared"]["mmhal"]
    assert "mine.yaml" in place.told("a", "mmhal")["rule"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--model", "m"], "nowhere is no finished evaluation"),
        (["a", "--model", "m", "--benchmark", "mmvp"], "No judge is asked about 'mmvp'"),
        (["a", "--model", "m", "--prompts", "mine.yaml"], "must be NAME=FILE"),
        (["a", "--model", "m", "--prompts", "mmhal=nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_mistakes_are_told(place, capsys, words, said):
    assert place.judge(*words) == 2
    assert said in capsys.readouterr().err and not place.server.bodies


def test_agreement_is_krippendorffs():
    """His own example of four observers and twelve units: 0.849 for interval data."""
    observers = ["123321412***", "1233224125*3", "*3332342251*", "123324412 51*".replace(" ", "")]
    units = [[float(value) for value in unit if value != "*"] for unit in zip(*observers)]
    assert agreement(units).alpha == pytest.approx(0.849, abs=5e-4) and agreement(units).units == 11
    assert agreement([[1, 1], [5, 5]]).alpha == 1 and agreement([[3, 3]]).alpha is None and agreement([[1]]).units == 0


@given(st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=4), min_size=2, max_size=8), st.randoms())
def test_agreement_does_not_depend_on_order_or_scale(units, random):
    found = agreement(units)
    mixed = [random.sample(unit, len(unit)) for unit in random.sample(units, len(units))]
    scaled = agreement([[3 * value + 1 for value in unit] for unit in mixed])
    assert (found.alpha is None) is (scaled.alpha is None) and scaled.same == found.same
    if found.alpha is not None:
        assert scaled.alpha == pytest.approx(found.alpha) and found.alpha <= 1

"""`svco ask`: answers are the model's own, their log-probabilities those of separate passes, and terminals keep their order."""

import io
import re
import sys

import numpy as np
import oracle
import pytest
import torch
from browser import each_look, faults, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from places import BASE

from svco import cli
from svco.commands.ask import command
from svco.commands.ask.answers import Answer, Picture
from svco.commands.ask.page import page
from svco.commands.ask.terminal import Board, Part, Screen, wide, wrapped
from svco.data.pairs import Pair, PairText
from svco.model import subject
from svco.tiny_world.contrast import world_pairs

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two contradicting images, an adapter, and the pair they are of."""
    folder = tmp_path_factory.mktemp("ask")
    (pair,) = world_pairs("gate", 0, 1)
    for side in (0, 1):
        (folder / f"{side}.jpg").write_bytes(pair.images[side])
    (folder / "damaged.jpg").write_bytes(pair.images[0][:200])
    (folder / "adapter").mkdir()
    oracle.make_adapter(BASE, folder / "adapter")
    return folder, pair


def ask(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["svco", "ask", "--base", str(BASE), *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
    return done.value.code


def test_answers_and_their_log_probabilities(place, capsys, monkeypatch):
    """Those of plain transformers and peft, one prompt and one sequence at a time; the base is loaded once."""
    folder, pair = place
    found, loads = {}, []
    load_base, pages = subject.load_base, command.page
    monkeypatch.setattr(subject, "load_base", lambda *a: loads.append(a) or load_base(*a))
    monkeypatch.setattr(command, "page", lambda *a: found.update(answers=a[2]) or pages(*a))
    images = ["--image", folder / "0.jpg", "--image", folder / "1.jpg"]
    words = [
        *images,
        "--adapter",
        folder / "adapter",
        "--html",
        folder / "a.html",
        "--max-new-tokens",
        24,
        pair.text.query,
    ]
    assert ask(*words) == 0 and len(loads) == 1
    told = capsys.readouterr().out
    assert ESCAPE not in told, "a pipe gets no colours"
    processor, base = oracle.load(BASE, torch.float32)
    for name in ("base", "tuned"):
        model = base if name == "base" else PeftModel.from_pretrained(base, folder / "adapter").eval()
        answers = [answers[name] for _, answers in found["answers"]]
        texts = tuple(answer.text for answer in answers)
        for answer, image in zip(answers, pair.images, strict=True):
            assert answer.text == oracle.answer(model, processor, pair.text.query, image, 24)
            assert f"{name}: {answer.text}" in told
            assert "".join(p for p, s in zip(answer.pieces, answer.special) if not s).strip() == answer.text
        with torch.no_grad():
            wanted = oracle.pair_logps(model, processor, Pair(PairText("k", pair.text.query, texts), pair.images))
        if not any(answer.is_cut for answer in answers):
            got = torch.tensor([answer.logps.sum(0).tolist() for answer in answers])
            torch.testing.assert_close(got, wanted.float(), atol=2e-4, rtol=1e-4)
            assert f"its image {got[0][0]:.2f}".replace("-", "−") in told
    html = (folder / "a.html").read_text()
    assert html.count('<p class="response"') == 4 and str(folder) not in html and "http" not in html


def test_one_image_a_cut_answer_and_a_base_alone(place, capsys):
    folder, pair = place
    assert ask("--image", folder / "0.jpg", "--max-new-tokens", 2, pair.text.query) == 0
    told = capsys.readouterr().out
    assert "cut there (--max-new-tokens)" in told and "the other image" not in told and "tuned" not in told
    assert re.search(r"log p: its image −\d+\.\d\d, no image −\d+\.\d\d nats; 2 tokens", told), told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--image", "nowhere.jpg", "What?"], "nowhere.jpg cannot be read"),
        (["--image", "FOLDER/damaged.jpg", "What?"], "damaged.jpg cannot be decoded"),
        (["--image", "FOLDER", "What?"], "cannot be read"),
        (["--image", "FOLDER/0.jpg", " \u200b"], "The question is empty"),
        (["--image", "FOLDER/0.jpg", "What is <image>?"], "cannot be put to this model"),
        (["--image", "FOLDER/0.jpg"] + ["--image", "FOLDER/1.jpg"] * 2 + ["What?"], "is given 3 times"),
        (["--image", "FOLDER/0.jpg", "--adapter", "nowhere/adapter", "What?"], "nowhere/adapter"),
        (["--image", "FOLDER/0.jpg", "--html", "nowhere/a.html", "What?"], "in one that is not there"),
    ],
)
def test_a_users_mistake_is_a_sentence(place, capsys, words, says):
    assert ask(*(word.replace("FOLDER", str(place[0])) for word in words)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert says in told and "Traceback" not in told


class Terminal(io.StringIO):
    """A terminal as far as columns need one: what it shows in the end."""

    def isatty(self):
        return True

    def rows(self):
        rows, at, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part.endswith("A") and part[0] == ESCAPE:
                at = at - int(part[2:-1])
                assert at >= 0, "it never goes above where it began"
            elif part == "\r":
                column = 0
            elif part == "\n":
                at, column = at + 1, 0
                rows += [""] * (at + 1 - len(rows))
            elif part == "\x1b[K":
                rows[at] = rows[at][:column]
            elif part == "\x1b[J":
                rows = [*rows[:at], rows[at][:column]]
            elif part[0] != ESCAPE:
                assert column == len(rows[at]) == 0 or rows[at][:column] == rows[at]
                rows[at] += part
                column = len(rows[at])
        return rows


TEXTS = st.text(st.sampled_from("ab 猫é\n\t\x1b[31m\r字x"), max_size=90)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["base", "tuned"]), TEXTS), max_size=8), st.integers(64, 120))
def test_columns_stay_in_their_places_whatever_is_said(told, width):
    """What stands there in the end is what was said last, and no line is longer than the terminal."""
    out = Terminal()
    screen = Screen(out)
    screen.width = width
    board = Board(screen, ["base", "tuned"])
    for model, text in told:
        board.told(model, text)
    last = dict(told)
    for model in ("base", "tuned"):
        board.done(model, Answer(last.get(model, ""), False, why="of no reason"))
    rows = out.rows()
    assert all(wide(row) <= width for row in rows)
    half = board.wide

    def column(number):
        cut = []
        for row in rows:
            start, letters = 0, ""
            for letter in row:
                if number * (half + 3) <= start < number * (half + 3) + half:
                    letters += letter
                start += wide(letter)
            cut.append(letters)
        return "".join("".join(cut).split())

    for number, model in enumerate(("base", "tuned")):
        words = f"{model}{last.get(model, '') or '(no answer)'}not scored: of no reason"
        assert column(number) == "".join(words.replace(ESCAPE, " ").split())


def test_colours_only_where_one_may(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    logps = torch.tensor([[-0.1, -5.0], [-3.0, -0.2], [-0.1, -0.12]]).double().numpy()
    found = Answer("A red one", False, ("A", " red", " one"), (False,) * 3, logps)

    def drawn(out):
        board = Board(Screen(out), ["base", "tuned"])
        for model in ("base", "tuned"):
            board.done(model, found)
        return out.getvalue()

    told = drawn(Terminal())
    assert "\x1b[48;5;24;38;5;231mA\x1b[0m" in told and "\x1b[48;5;166;38;5;16m red\x1b[0m" in told
    assert "the image says most for: A +4.90" in told and "and against: red −2.80" in told
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[48;5" not in drawn(Terminal()) and "[1m" not in drawn(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert ESCAPE not in drawn(Terminal())
    assert ESCAPE not in drawn(io.StringIO())


def test_a_long_word_is_broken_and_a_short_one_is_not():
    rows = wrapped([Part("one two"), Part("three" * 5)], 8)
    assert ["".join(part.text for part in row) for row in rows] == ["one two", "threethr", "eethreet", "hreethre", "e"]


def test_the_page_on_every_screen(place, tmp_path):
    scored = [-np.random.default_rng(n).gamma(1, 2, (60, 3)) for n in range(2)]
    words = tuple(f" {'long' * (n % 7)}word" for n in range(60))
    told = {
        name: Answer("".join(words), False, words, (False,) * 60, logps)
        for name, logps in zip(("base", "tuned"), scored)
    }
    told["nothing"] = Answer("", False, why="the answer is empty")
    pictures = [Picture(f"{'name' * 20}{side}.jpg", place[1].images[side], None) for side in (0, 1)]
    facts = {"base": "tiny_llava", "adapter": "demo"}
    (tmp_path / "ask.html").write_text(page("What size is it? " * 9, facts, [(picture, told) for picture in pictures]))
    with each_look(tmp_path, tmp_path / "ask.html") as looks:
        for driver, name in looks:
            assert not faults(driver), name
            (tmp_path / f"ask-{name}.png").write_bytes(whole(driver))
        assert not [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]


def test_the_page_escapes(place):
    evil = "</p><script>x()</script>"
    picture = Picture(evil, place[1].images[0], None)
    text = page(evil, {"base": evil}, [(picture, {evil: Answer(evil, True, why=evil)})])
    assert text.count("<script>") == 1 and evil not in text

"""`svco data rewrite`: both stages through an endpoint on loopback, as a user runs them; the checks; the templates."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from endpoint_server import KEY, QUESTION, Server, well
from hypothesis import given, settings
from hypothesis import strategies as st

from svco import cli
from svco.basics.errors import UserError
from svco.commands.data.records import make_record, read_records
from svco.commands.data.rewrite.checks import REASONS, faults
from svco.commands.data.rewrite.prompts import FOLDER, read_prompts
from svco.commands.data.rewrite.replies import read_answers
from svco.commands.data.rewrite.template import TemplateRewriter
from svco.commands.data.words import pieces

RULES = read_prompts("captions").rules
BIRDS = ("a red bird", "a blue bird")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with 12 records, and ``svco(...)`` in it."""
    lines = [
        {"images": [f"{n}a.jpg", f"{n}b.jpg"], "captions": [f"{b} on rock {n}" for b in BIRDS], "type": "attribute"}
        for n in range(12)
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)

    def svco(*words):
        monkeypatch.setattr(sys, "argv", ["svco", "data", "rewrite", "r.jsonl", "-o", "o.jsonl", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code

    return SimpleNamespace(folder=tmp_path, svco=svco)


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("openai", reason="NOT TESTED: needs openai: pip install 'svco[endpoint]'")
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


def test_said_first_then_asked_then_known(place, server, capsys):
    assert place.svco("--model", "gpt-4o") == 2
    told = capsys.readouterr()
    assert "requests: 24" in told.out and "$" in told.out and "Nothing was asked. Add --yes" in told.err
    assert not server.bodies
    assert place.svco("--model", "gpt-4o", "--yes", "--limit", 2) == 0 and len(server.bodies) == 4
    assert place.svco("--model", "gpt-4o", "--yes", "--at-once", 3) == 0
    assert len(server.bodies) == 24 and server.most_at_once <= 3
    assert "24 replies, 2,400 tokens of prompts and 240 of replies: $0.0084" in capsys.readouterr().out
    records = read_records(place.folder / "o.jsonl")
    assert [r.images[0] for r in records] == [f"{n}a.jpg" for n in range(12)], "in the records' order"
    assert (records[7].query, records[7].responses) == (
        QUESTION["question"],
        ("There is a red bird on rock 7 in it.", "There is a blue bird on rock 7 in it."),
    )
    stage = records[7].stages["rewrite"]
    assert stage["prompts_sha256"] == read_prompts("captions").digest
    assert stage["answered"] == {"question": "gpt-4o-as-served", "answers": "gpt-4o-as-served"}
    first = (place.folder / "o.jsonl").read_bytes()
    server.shutdown()
    assert place.svco("--model", "gpt-4o") == 0, "all is known: neither consent nor endpoint is needed"
    assert (place.folder / "o.jsonl").read_bytes() == first
    about = json.loads((place.folder / "o.about.json").read_text())
    assert about["prompts_used"]["answers"]["user"] == read_prompts("captions").answers.user
    for file in place.folder.iterdir():
        assert KEY.encode() not in file.read_bytes() and server.address.encode() not in file.read_bytes(), file


def test_other_checks_cost_nothing_and_other_prompts_are_asked(place, server, capsys):
    assert place.svco("--model", "gpt-4o", "--yes") == 0
    mine = place.folder / "mine.yaml"
    shipped = (FOLDER / "captions.yaml").read_text()
    mine.write_text(shipped + "checks:\n  answer_words: [11, 80]\n")
    assert place.svco("--model", "gpt-4o", "--prompts", mine, "--turns", 1) == 1
    assert "12  length: " in capsys.readouterr().out and len(server.bodies) == 24
    reject = json.loads((place.folder / "o.rejected.jsonl").read_text().splitlines()[0])
    assert reject["record"]["images"] == ["0a.jpg", "0b.jpg"] and "rock 0" in reject["said"][1]
    assert reject["reasons"][0] == "length: answer 0 has 10 words, allowed are 11 to 80"
    mine.write_text(shipped.replace("friendly", "brief"))
    assert place.svco("--model", "gpt-4o", "--prompts", mine, "--yes") == 0
    assert len(server.bodies) == 36, "the first stage is as it was"
    digests = {r.stages["rewrite"]["prompts_sha256"] for r in read_records(place.folder / "o.jsonl")}
    assert digests == {read_prompts(str(mine)).digest} != {read_prompts("captions").digest}


def test_a_pair_is_asked_for_anew_until_it_passes_and_rejected_with_reasons(place, server, capsys):
    asked = []

    def say(body):
        first = well(body)
        rock = next(word for word in body["messages"][-1]["content"].split() if word.isdigit())
        asked.append((rock, "question" in first))
        turn = asked.count((rock, True))
        if "question" in first and rock == "3" and turn == 1:
            return '{"question": "Is the bird on the rock red?"}'
        if "question" in first and rock == "5":
            return "I am sorry, I cannot do that."
        if "question" not in first and rock == "7":
            return json.dumps({"answers": ["As the caption says, it is red."] * 2})
        return f"Sure!\n```json\n{first}\n```"

    server.say = say
    assert place.svco("--model", "gpt-4o", "--yes") == 0
    out = capsys.readouterr().out
    assert "10 of 12 pairs rewritten" in out and "2 rejected" in out
    kept = {r.images[0]: r for r in read_records(place.folder / "o.jsonl")}
    assert kept["3a.jpg"].stages["rewrite"]["turn"] == 1 and kept["3a.jpg"].query == QUESTION["question"]
    reasons = {
        row["record"]["images"][0]: " ".join(row["reasons"])
        for row in map(json.loads, (place.folder / "o.rejected.jsonl").read_text().splitlines())
    }
    assert "bad-reply: no JSON object" in reasons["5a.jpg"]
    assert "meta: " in reasons["7a.jpg"] and "same-answers: " in reasons["7a.jpg"]
    assert "bad-reply: " in out and "meta: it speaks of captions" in out


def test_a_killed_run_pays_nothing_twice(place, server):
    server.seconds = 0.05
    line = [sys.executable, "-m", "svco", "data", "rewrite", "r.jsonl", "-o", "o.jsonl", "--model", "gpt-4o", "--yes"]
    line += ["--at-once", "2"]
    process = subprocess.Popen(line, cwd=place.folder, env=os.environ, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.bodies) < 11 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and 11 <= len(server.bodies) < 24
    assert not (place.folder / "o.jsonl").exists()
    done = subprocess.run(line, cwd=place.folder, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0 and "12 of 12 pairs" in done.stdout, done.stderr
    twice = [body for body, times in server.asked.items() if times > 1]
    assert len(server.asked) == 24 and len(twice) <= 2, "only what was on its way when it was killed"


def test_through_the_batch_api_stage_by_stage(place, server, capsys):
    batch = ("--model", "gpt-4o", "--yes", "--batch")
    server.misbehave, server.ready = ["a request fails"], False
    assert place.svco(*batch, "submit") == 0
    assert "12 requests handed in" in capsys.readouterr().out
    assert place.svco(*batch, "submit") == 0 and len(server.batches) == 1, "not handed in twice"
    assert place.svco(*batch, "collect") == 0
    assert "is in_progress" in capsys.readouterr().out
    assert place.svco("--model", "gpt-4o", "--yes") == 2 and not server.bodies, (
        "what is in a batch is not asked beside it"
    )
    server.ready = True
    capsys.readouterr()
    assert place.svco(*batch, "collect") == 0
    out = capsys.readouterr().out
    assert "11 replies came" in out and "1 of its requests without a reply" in out and "--batch submit" in out
    for _ in range(2):
        assert place.svco(*batch, "submit") == 0 and place.svco(*batch, "collect") == 0
    assert "12 of 12 pairs rewritten" in capsys.readouterr().out
    assert len(server.batches) == 3 and not server.bodies
    assert [len(server.files[b["input_file_id"]].splitlines()) for b in server.batches.values()] == [12, 12, 1]
    assert place.svco("--model", "gpt-4o") == 0
    assert "$0.0042" in capsys.readouterr().out, "half the price"


@pytest.mark.parametrize(
    ("question", "answers", "captions", "reason"),
    [
        ("What colour is the bird?", ("It is red.", "It is blue."), BIRDS, None),
        ("What colour is the bird?", ("Red.", "Blue."), BIRDS, "length"),
        ("Is the bird red or blue?", ("It is red.", "It is blue."), BIRDS, None),
        ("Is the bird red?", ("Yes, it is red.", "No, it is blue."), BIRDS, "leak"),
        ("How many birds are there?", ("One bird.", "Two birds."), ("1 bird", "2 birds"), None),
        ("How many are there?", ("There is a red one.", "There is a red one!"), None, "same-answers"),
        ("What colour is it?", ("It is blue.", "It is red."), BIRDS, "exchanged"),
        ("What colour is it?", ("It is green.", "It is blue."), BIRDS, "ungrounded"),
        ("Who is left?", ("A dog left of a cat.", "A cat left of a dog."), ("dog left of cat", "cat left of dog"), None),
        ("What colour is it?", ("It is red.", "Sorry, I can't tell."), None, "refusal"),
        ("What colour is it?", ("It is red.", "Is it blue?"), None, "asks-back"),
        ("The bird in the sky.", ("It is red.", "It is blue."), None, "no-question"),
        ("Describe the bird here.", ("It is red.", "It is blue."), BIRDS, None),
        ("Please describe the bird.", ("It is red.", "It is blue."), BIRDS, None),
        ("What colour is it?", ("It is red\nor so.", "It is blue\nor so."), None, "lines"),
        ("What does the caption say?", ("It is red.", "It is blue."), None, "meta"),
        ("What does Captioner do now?", ("It is red.", "It is blue."), None, None),
        ("What is it?", ("A red bird sits on a tree.", "Many people cross wide roads."), None, "too-different"),
        ("What is seen now?", ("A red bird.", "A blue bird in a high and very old tree by the sea."), BIRDS, "too-different"),
        ("这是什么颜色的鸟?", ("这是一只红色的鸟。", "这是一只蓝色的鸟。"), None, None),
    ],
)  # fmt: skip
def test_checks(question, answers, captions, reason):
    found = [name for name, _ in faults(question, answers, captions, RULES)]
    assert found == [] if reason is None else reason in found, found
    assert set(found) <= REASONS.keys()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_pieces_are_the_text_and_mark_what_differs(first, second):
    cuts = pieces(first, second)
    for text, cut in zip((first, second), cuts):
        assert "".join(piece.text for piece in cut) == text
        assert all(a.differs is not b.differs for a, b in zip(cut, cut[1:]))
    same = ["".join("".join(p.text for p in cut if not p.differs).casefold().split()) for cut in cuts]
    assert same[0] == same[1], "what is not marked is the same in both, but for capitals and spaces"
    assert not any(piece.differs for cut in pieces(first, first) for piece in cut)
    assert [p.text for p in pieces("It is dark red, here.", "It is blue, here.")[0] if p.differs] == ["dark red"]


def test_templates_need_nobody_and_depend_on_the_pair_alone(place, capsys):
    assert place.svco("--backend", "template") == 0
    out = capsys.readouterr().out
    assert "12 of 12 pairs rewritten" in out and "next: svco data build o.jsonl" in out
    records = read_records(place.folder / "o.jsonl")
    assert len({r.query for r in records}) > 1, "several questions a type"
    again = TemplateRewriter()
    for record in reversed(records):
        made = again(record).record
        assert (made.query, made.responses) == (record.query, record.responses)
    odd = make_record({"images": ["a", "b"], "captions": ["A dog. ", "Rex, a cat."]}, "here")
    first, second = again(odd).record.responses
    assert "a dog." in first and "Rex, a cat." in second
    same = make_record({"images": ["a", "b"], "captions": ["a dog", "A dog."]}, "here")
    assert [reason for reason, _ in again(same).reasons] == ["same-answers"]
    edit = make_record({"images": ["a", "b"], "instruction": "remove the dog"}, "here")
    assert again(edit).reasons == (("lacks", "captions"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no prompts"),
        ("question: keep", "must have question"),
        ("question: keep\nanswers: {user: $q}", "$q is none of"),
        ("question: keep\nanswers: {user: 'costs 5$ '}", "stands alone"),
        ("question: keep\nanswers: {user: $caption}", "is for each: side"),
        ("question: keep\nanswers: {user: a, reply: text}", "each: side"),
        ("question: {user: $question}\nanswers: {user: a}", "$question is none of"),
        ("question: keep\nanswers: {user: a, imagess: true}", "Did you mean 'images'?"),
        ("question: keep\nanswers: {user: a, parameters: {model: x}}", "must not set model"),
        ("question: keep\nanswers: {user: a}\nchecks: {shared: 3}", "checks are"),
        ("question: keep\nanswers: {user: a}\nchecks: {grounded: 1}", "checks are"),
        ("question: keep\nanswers: {user: a}\nextra: 1", "has 'extra'"),
        ("question: [", "not valid YAML"),
    ],
)
def test_prompts_that_are_none_say_what_is_wrong(tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_prompts(str(tmp_path / "mine.yaml"))
    assert says in str(error.value) and "mine.yaml" in str(error.value)


def test_every_shipped_file_of_prompts_reads_and_the_nearest_is_told(place, capsys):
    for name in ("captions", "pictures", "ask"):
        assert read_prompts(name).answers.user
    assert place.svco("--model", "m", "--prompts", "caption") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Did you mean 'captions'?" in error and "cp " in error
    assert place.svco("--model", "m", "--prompts", "pictures") == 2
    assert "give their folder with --images" in " ".join(capsys.readouterr().err.split())
    assert place.svco() == 2
    assert "Name the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"answers": ["a"]}', '{"answers": ["a", ""]}', '{"answers": ["a", 1]}', "{}{}"]
)
def test_replies_that_hold_no_answers(text):
    with pytest.raises(ValueError):
        read_answers(text)

"""`svco data rewrite` and `svco judge` with a real model: the embedded base, served by transformers."""

import json
import subprocess
import sys

import pytest
from judged import answered, make_mmhal
from launch import ENVIRONMENT
from places import BASE
from serving import served

from svco import cli
from svco.commands.data.records import read_records
from svco.commands.data.rewrite.prompts import FOLDER
from svco.commands.judge.rules import FOLDER as JUDGES

for package in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"NOT TESTED: needs {package}: pip install 'svco[test]'")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the embedded base, served."""
    with served(BASE, tmp_path_factory.mktemp("served") / "log") as found:
        yield found


def test_a_served_model_answers_about_what_it_sees(address, make_pairs, tmp_path):
    with (tmp_path / "r.jsonl").open("w") as stream:
        for pair in [p for p in make_pairs("gate", 0, 60) if p.text.contrast == "position"][:6]:
            names = [f"{pair.text.key}.{side}.jpg" for side in (0, 1)]
            for name, image in zip(names, pair.images):
                (tmp_path / name).write_bytes(image)
            record = {"query": pair.text.query, "images": names, "responses": pair.text.responses, "type": "position"}
            stream.write(json.dumps(record) + "\n")

    def rewrite(*words):
        line = [
            sys.executable,
            "-m",
            "svco",
            "data",
            "rewrite",
            "r.jsonl",
            "--images",
            ".",
            "--model",
            str(BASE),
            *words,
        ]
        environment = ENVIRONMENT | {"OPENAI_BASE_URL": address}
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    # The embedded base often answers with one word.
    (tmp_path / "short.yaml").write_text((FOLDER / "ask.yaml").read_text() + "checks: {answer_words: [1, 80]}\n")
    done = rewrite("--prompts", "short.yaml", "--at-once", "2", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "price:    nothing" in done.stdout and "12 replies" in done.stdout
    kept = read_records(tmp_path / "rewritten.jsonl")
    rejected = [json.loads(line) for line in (tmp_path / "rewritten.rejected.jsonl").read_text().splitlines()]
    assert kept and rejected and len(kept) + len(rejected) == 6, (
        "what a base of 1.4 M parameters sees, and what it does not"
    )
    for record in kept:
        assert record.responses[0] != record.responses[1], "each answer is of its own picture"
        assert record.stages["rewrite"]["answered"]["answers"].startswith(str(BASE))
        assert record.stages["rewrite"]["before"]["query"] == record.query
    assert all(row["reasons"] and len(row["said"]) == 2 for row in rejected)

    # This server takes response_format and ignores it: the reply is found to be no JSON here.
    done = rewrite("--limit", "1", "--turns", "1", "--yes", "-o", "json.jsonl")
    assert done.returncode == 1 and "bad-reply: " in done.stdout, done.stdout + done.stderr


def test_a_served_model_judges_what_it_is_told(address, tmp_path, monkeypatch, capsys):
    """The embedded base follows no instruction: svco's own prompt gets no rating of it. How it begins its answer is one."""
    release = make_mmhal(tmp_path / "mmhal", count=2)
    answered(tmp_path / "a", "A", {"mmhal": release}, lambda _, item: f"There are {item.name} circles.")
    own = """
        user: $contents. $question $reference $answer What can you see?
        reply: '(?i)\\A\\W*(?P<rating>the|i|there|a|it|one|two|three|in|this)\\b'
        numbers: {i: 0, a: 0, the: 1, there: 1, one: 1, it: 2, two: 2, three: 3, in: 4, this: 5}
        parameters: {max_tokens: 40}
        """
    (tmp_path / "begins.yaml").write_text("\n".join(line.strip() for line in own.splitlines()))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", address)

    def judge(*words):
        monkeypatch.setattr(sys, "argv", ["svco", "judge", "a", "--model", str(BASE), "--yes", *words])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, capsys.readouterr().out

    def told():
        return json.loads((tmp_path / "a" / "eval.json").read_text())["benchmarks"]["mmhal"]

    shipped = (JUDGES / "mmhal.yaml").read_text()
    (tmp_path / "short.yaml").write_text(shipped.replace("max_tokens: 600", "max_tokens: 4"))
    code, said = judge("--turns", "1", "--prompts", "mmhal=short.yaml")
    assert "max_tokens: 600" in shipped and code == 1 and "2 of 2 judgements are lacking" in said, said
    assert told()["judged"] == 0 and "score" not in told()
    code, said = judge("--prompts", "mmhal=begins.yaml", "--judgements", "2")
    assert code == 0, said
    found = told()
    assert (found["judged"], found["judgements"]) == (2, 4)
    assert 0 <= found["score"] <= 5 and found["agreement"]["units"] == 2
    assert found["judge"]["answered"][0].startswith(str(BASE)) and found["judge"]["cost"] == 0

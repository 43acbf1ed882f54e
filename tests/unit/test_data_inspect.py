"""svco data inspect: counts and lengths of records and shards; and that no hostile input gets through any tool of the factory."""

import json
import resource
import subprocess
import sys
import zlib

import pytest
from PIL import Image
from places import BASE, ROOT
from test_data_build import photograph, records_of, run, save


@pytest.fixture
def three(tmp_path):
    """Records of three pairs of two sources, one of whose pictures is 60 × 30, and their folder of images."""
    pairs = []
    for n in range(3):
        save(photograph(n, (60, 30) if n == 0 else (40, 40)), tmp_path / "i" / f"{n}a.jpg")
        save(photograph(9 + n, (40, 40)), tmp_path / "i" / f"{n}b.jpg")
        pairs.append((f"{n}a.jpg", f"{n}b.jpg", "object" if n else "action", "x" if n else "y"))
    return records_of(tmp_path, pairs), tmp_path / "i"


def told(capsys, *arguments):
    capsys.readouterr()
    code = run("inspect", *arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_records_and_their_shards_are_counted_alike(three, tmp_path, capsys):
    records, images = three
    code, of_records = told(capsys, records, "--images", images, "--base", BASE)
    assert code == 0
    assert of_records["source"] == {"x": 2, "y": 1}
    assert of_records["type"] == {"object": 2, "action": 1}
    assert of_records["licence"] == {"not stated": 3}
    measured = of_records["measures"]
    assert measured["picture, width"] == {
        "count": 6,
        "mean": 43.33,
        "least": 40,
        "p5": 40,
        "p50": 40,
        "p95": 60,
        "most": 60,
    }
    assert measured["response, words"] == {"count": 6, "mean": 2, "least": 2, "p5": 2, "p50": 2, "p95": 2, "most": 2}
    assert measured["query, characters"]["most"] == len("What is in 0?")
    assert measured["query, tokens"]["least"] >= 4
    assert run("build", records, "--images", images, "--val", 0.34, "--heldout", 0, "-o", tmp_path / "s") == 0
    code, of_shards = told(capsys, tmp_path / "s", "--base", BASE)
    assert (code, of_shards.pop("split")) == (0, {"train": 2, "val": 1})
    assert of_shards == {name: value for name, value in of_records.items() if name != "split"}
    picture = tmp_path / "sizes.png"
    assert run("inspect", tmp_path / "s", "-o", picture) == 0
    assert Image.open(picture).size > (600, 400)
    assert "response, words" in capsys.readouterr().out
    assert run("inspect", records, tmp_path / "s") == 2, "records and shards apart"


def test_what_cannot_be_read_is_counted_and_named(three, tmp_path, capsys):
    records, images = three
    (images / "1a.jpg").write_bytes(b"no picture")
    code, found = told(capsys, records, "--images", images)
    assert (code, found["bad"], found["pairs"]) == (1, {"undecodable-image": 1}, 3)
    assert told(capsys, records)[0] == 0, "without their folder nothing is opened"


def bomb(path):
    """A PNG of 60,000 × 60,000 pixels in a few kilobytes."""

    def chunk(name, data):
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    rows = zlib.compress(bytes(60_000 // 8 * 1000), 9)
    head = (60_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


GOOD = {"query": "What?", "images": ["a.jpg", "b.jpg"], "responses": ["A.", "B."]}
RECORDS = {
    "a score that is NaN": (
        json.dumps(GOOD | {"scores": {"clip": 0}}).replace(": 0}", ": NaN}"),
        "NaN is no JSON number",
    ),
    "an infinite score": (json.dumps(GOOD | {"scores": {"clip": 0}}).replace(": 0}", ": 1e999}"), "no finite number"),
    "a line of 70 MB": ('{"query": "' + "x" * 70_000_000, "more than 67,108,864 bytes"),
    "deep JSON": ("[" * 200_000, "holds a JSON list"),
    "deep facts": (json.dumps(GOOD)[:-1] + ', "facts": ' + '{"a":' * 70 + "1" + "}" * 71, "nested more than"),
    "a number of 5,000 digits": (json.dumps(GOOD)[:-1] + ', "ids": {"a": ' + "9" * 5000 + "}}", "is not JSON"),
    "a path that leads out": (json.dumps(GOOD | {"images": ["../a.jpg", "b.jpg"]}), "leads out of the image folder"),
    "a tar as records": ("x.0.jpg".ljust(512, "\0"), "is not JSON"),
}
TOOLS = {
    "import": ("import", "jsonl", "RECORDS", "--images", "IMAGES", "-o", "OUT"),
    "filter": (
        "filter",
        "RECORDS",
        "--images",
        "IMAGES",
        "--clip",
        BASE,
        "--dino",
        BASE,
        "-o",
        "OUT",
        "--cache",
        "CACHE",
    ),
    "rewrite": ("rewrite", "RECORDS", "--backend", "template", "-o", "OUT"),
    "view": ("view", "RECORDS", "--images", "IMAGES", "-o", "OUT"),
    "build": ("build", "RECORDS", "--images", "IMAGES", "-o", "OUT"),
    "inspect": ("inspect", "RECORDS", "--images", "IMAGES"),
}
RUNNER = """
import json, resource, sys
from svco import cli
before = None
for name, words in json.load(sys.stdin):
    sys.argv = ["svco", "data", *words]
    print(f"== {name}", flush=True)
    print(f"== {name}", file=sys.stderr, flush=True)
    try:
        cli.main()
    except SystemExit as done:
        print(f"exit {done.code}", file=sys.stderr, flush=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_no_tool_takes_hostile_records(tmp_path):
    """Every tool that reads records, every hostile file of them: refused by name with exit code 2, in one process of less than
    2 GiB, and the good record passes (the control)."""
    images = tmp_path / "i"
    for n, name in enumerate("ab"):
        save(photograph(n, (40, 30)), images / f"{name}.jpg")
    calls = []
    for number, (kind, (text, _)) in enumerate(RECORDS.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(GOOD) + "\n" * (kind != "deep JSON") + text if kind != "deep JSON" else text)
        for tool, words in TOOLS.items():
            if (tool == "filter" and "NaN" not in kind) or (kind == "a line of 70 MB" and tool != "inspect"):
                continue  # dear, and one reader of lines for all (records.py)
            places = {
                "RECORDS": path,
                "IMAGES": images,
                "OUT": tmp_path / f"{tool}{number}",
                "CACHE": tmp_path / f"c{number}",
            }
            calls.append((f"{tool}: {kind}", [str(places.get(word, word)) for word in words]))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(calls), capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(part.split("\n", 1) for part in done.stderr.split("== ")[1:])
    for name, _ in calls:
        kind = name.partition(": ")[2]
        text = " ".join(said[name].split())
        assert "exit 2" in text, (name, text[-500:])
        assert RECORDS[kind][1] in text, (name, text[-500:])
        assert "Traceback" not in text
    assert int(done.stdout.split()[-1]) < 2048
    left = {path.name for path in tmp_path.iterdir()} - {"i"} - {f"{n}.jsonl" for n in range(len(RECORDS))}
    assert not {name for name in left if not name.startswith(("c", "view"))}, "nothing half made is left"


@pytest.mark.parametrize("tool", ["view", "build", "inspect"])
def test_no_tool_opens_a_bomb(tmp_path, tool, capsys):
    images = tmp_path / "i"
    save(photograph(0, (40, 30)), images / "a.jpg")
    bomb(images / "b.jpg")
    (tmp_path / "r.jsonl").write_text(json.dumps(GOOD) + "\n")
    places = {"RECORDS": tmp_path / "r.jsonl", "IMAGES": images, "OUT": tmp_path / "out", "CACHE": tmp_path / "c"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = run(*[places.get(word, word) for word in TOOLS[tool]])
    said = capsys.readouterr()
    assert code == {"view": 0, "inspect": 1}.get(tool, 2), "a gallery shows what cannot be read"
    page = "".join(path.read_text() for path in places["OUT"].rglob("*.js*")) if tool == "view" else ""
    assert "3600000000 pixels" in " ".join((said.out + said.err + page).split())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"

"""Real data in: the authors' release format and svco's own, through build and verify, as a user runs them."""

import collections
import hashlib
import io
import json
import sys

import launch
import pytest
from PIL import Image

from svco import __version__, cli
from svco.basics.errors import UserError
from svco.commands.data.target import filling
from svco.data.shards import ShardSet


def jpeg(seed, size=(24, 16), form="JPEG", **how):
    buffer = io.BytesIO()
    Image.effect_noise(size, 40 + seed).convert("RGB").save(buffer, form, **how)
    return buffer.getvalue()


def svco(monkeypatch, *arguments):
    """Runs the console script in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["svco", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code


@pytest.fixture
def release(tmp_path):
    """The MVC release's layout in small: three sources, one picture shared by two items."""
    images, items = tmp_path / "images", []
    folders = [
        ("flickr30k/{n}.jpg", "Flickr30k-Counterfactuals/left_right/neg/{n}_1.jpg"),
        ("flickr30k/{n}.jpg", "Flickr30k-Counterfactuals/dalle_gen_counterfactuals/{n}_noun.jpg"),
        ("finecops-ref/pos/{n}.jpg", "finecops-ref/neg/{n}.png"),
    ]
    for n in range(60):
        good, bad = (part.format(n=n) for part in folders[n % 3])
        if n == 4:
            good = items[0]["chosen_images"][0]
        for path in (good, bad):
            (images / path).parent.mkdir(parents=True, exist_ok=True)
            if not (images / path).exists():
                (images / path).write_bytes(
                    jpeg(n + 100 * (path == bad), form="PNG" if path.endswith("png") else "JPEG")
                )
        items.append(
            {
                "system_prompt": "You see." if n % 2 else "",
                "instruction_prompt": f"What is in picture {n}?",
                "chosen_images": [good],
                "rejected_images": [bad],
                "chosen_response": f"Thing {n}.",
                "rejected_response": f"No thing {n}.",
                "extra": 1,
            }
        )
    file = tmp_path / "mvc.json"
    file.write_text(json.dumps(items))
    return tmp_path


def test_release_to_verified_shards(release, monkeypatch, capsys):
    records, shards = release / "records.jsonl", release / "shards"
    assert (
        svco(
            monkeypatch,
            "data",
            "import",
            "mvc-json",
            release / "mvc.json",
            "--images",
            release / "images",
            "-o",
            records,
        )
        == 0
    )
    build = [
        "data",
        "build",
        records,
        "--images",
        release / "images",
        "--val",
        0.1,
        "--heldout",
        0.1,
        "--pairs-per-shard",
        20,
        "-o",
    ]
    assert svco(monkeypatch, *build, shards) == 0
    assert svco(monkeypatch, "data", "verify", shards) == 0
    assert "all is well" in capsys.readouterr().out
    assert {"records.jsonl", "MANIFEST.json", "train-000000.tar.index.json"} <= launch.strictly_json(release)
    assert sorted(p.name for p in shards.glob("*.tar")) == [
        "heldout-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
        "val-000000.tar",
    ]
    opened = ShardSet.open(str(shards))
    pairs = [opened.read(i) for i in range(len(opened))]
    assert len(pairs) == 60
    assert collections.Counter(p.text.contrast for p in pairs) == {"position": 20, "object": 20, "unknown": 20}
    by_query = {p.text.query: p for p in pairs}
    pair = by_query["What is in picture 7?"]
    assert pair.text.responses == ("Thing 7.", "No thing 7.")
    assert (pair.text.system, pair.text.source) == ("You see.", "mvc")
    imported = {"source": "mvc-json", "svco": __version__, "release": "mvc.json"}
    provenance = {"licence": "not stated", "extra": {"extra": 1}, "stages": {"import": imported}}
    assert (pair.text.kind, pair.text.facts) == ("noun", {"provenance": provenance})
    original = (release / "images" / "Flickr30k-Counterfactuals/dalle_gen_counterfactuals/7_noun.jpg").read_bytes()
    assert pair.images[1] == original, "a JPEG's bytes are kept"
    converted = Image.open(io.BytesIO(by_query["What is in picture 5?"].images[1]))
    assert (converted.format, converted.size) == ("PNG", (24, 16))
    # Items 0 and 4 share a picture: they must be in one split.
    home = {index.path: {e.key for e in index.entries} for index in opened.indices}
    split = {key: path.rpartition("/")[2].split("-")[0] for path, keys in home.items() for key in keys}
    assert split[by_query["What is in picture 0?"].text.key] == split[by_query["What is in picture 4?"].text.key]
    assert svco(monkeypatch, *build, release / "again") == 0
    for path in shards.glob("*.tar"):
        assert (
            hashlib.sha256(path.read_bytes()).digest()
            == hashlib.sha256((release / "again" / path.name).read_bytes()).digest()
        )


def test_missing_images_are_counted_by_folder(release, monkeypatch, capsys):
    for n in (3, 6, 9):
        (release / "images" / f"flickr30k/{n}.jpg").unlink()
    (release / "images" / "finecops-ref/neg/5.png").unlink()
    run = [
        "data",
        "import",
        "mvc-json",
        release / "mvc.json",
        "--images",
        release / "images",
        "-o",
        release / "r.jsonl",
    ]
    assert svco(monkeypatch, *run) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "4 of 60 pairs lack an image" in error
    assert "3 missing under flickr30k/ (the Flickr30k images, on request" in error
    assert "1 missing under finecops-ref/" in error
    suggested = error.partition("--max-missing ")[2].rstrip(".")
    assert suggested == "0.07", "rounded up: 4 of 60 are more than 0.06"
    assert svco(monkeypatch, *run, "--max-missing", 0.06) == 2
    assert svco(monkeypatch, *run, "--max-missing", suggested) == 0
    for share in ("nan", "-0.1", "7", "x"):
        assert svco(monkeypatch, *run, "--max-missing", share) == 2
    capsys.readouterr()
    assert svco(monkeypatch, *run, "--max-missing", 0.1) == 0
    assert "56 of 60 pairs written" in capsys.readouterr().out


def test_own_format_orientation_and_repetitions(tmp_path, monkeypatch, capsys):
    images = tmp_path / "i"
    images.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    (images / "a.jpg").write_bytes(jpeg(1, exif=turned))
    for n in range(12):
        (images / f"b{n}.jpg").write_bytes(jpeg(n + 2))
    lines = [
        {
            "query": "Q?",
            "images": ["a.jpg" if n == 0 else f"b{n - 1}.jpg", f"b{n}.jpg"],
            "responses": ["x", "y"],
            "type": "object",
        }
        for n in range(0, 12, 2)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps(line) for line in [*lines, lines[0]]))
    assert (
        svco(monkeypatch, "data", "import", "jsonl", tmp_path / "mine.jsonl", "--images", images, "-o", tmp_path / "r")
        == 0
    )
    assert (
        svco(
            monkeypatch,
            "data",
            "build",
            tmp_path / "r",
            "--images",
            images,
            "-o",
            tmp_path / "s",
            "--val",
            0,
            "--heldout",
            0,
        )
        == 0
    )
    assert "1 repeated" in capsys.readouterr().out
    opened = ShardSet.open(str(tmp_path / "s"))
    sizes = {opened.image_sizes(i) for i in range(len(opened))}
    assert ((16, 24), (24, 16)) in sizes, "the camera's orientation is applied"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"images": ["../x.jpg", "b.jpg"]}, "leads out of the image folder"),
        ({"images": ["/x.jpg", "b.jpg"]}, "leads out"),
        ({"responses": ["a", ""]}, "'responses' must be two"),
        ({"type": "colour"}, "one of object"),
        ({"imagez": 1}, "unknown field"),
        ({"query": None}, "'query'"),
        ("no", "JSON object"),
    ],
)
def test_bad_records_name_file_and_line(tmp_path, monkeypatch, capsys, line, says):
    good = {"query": "Q?", "images": ["a.jpg", "b.jpg"], "responses": ["x", "y"]}
    bad = good | line if isinstance(line, dict) else line
    (tmp_path / "mine.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    assert svco(monkeypatch, "data", "import", "jsonl", tmp_path / "mine.jsonl", "--images", tmp_path) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "mine.jsonl, line 2" in error
    assert says in error


def test_verify_finds_what_is_wrong(shards, tmp_path, make_pairs, monkeypatch, capsys):
    from test_shards import rewrite

    from svco.data.pairs import Pair
    from svco.data.shards import write_shards

    pairs = make_pairs("train", 0, 20)
    leaked = Pair(make_pairs("val", 0, 1)[0].text, pairs[3].images)
    write_shards([leaked, *make_pairs("val", 1, 2)], shards, "val", 10)
    tar = shards / "train-000001.tar"
    rewrite(tar, tmp_path / "new.tar", lambda name, data: data[:300] if name == "train-000009.1.jpg" else data)
    (tmp_path / "new.tar").replace(tar)
    (shards / "MANIFEST.json").write_text(
        json.dumps({"shards": {"train-000000.tar": {"bytes": 1, "sha256": "0" * 64}}})
    )
    assert svco(monkeypatch, "data", "verify", shards) == 1
    out = capsys.readouterr().out
    assert "undecodable-image: train: sample 'train-000009': image 1" in out
    assert "leak: a picture of val/val-000000 is also one of train/train-000003" in out
    assert "changed shard" in out
    assert "stale index: The shard" in out
    assert "5 problems" in out, "both pictures leak"
    assert svco(monkeypatch, "data", "verify", tmp_path / "nowhere") == 2


def test_a_failed_command_leaves_nothing_that_blocks_the_next(tmp_path, monkeypatch, capsys):
    """Whatever ends it (a picture that goes missing while shards are written, a full disk, a signal): the same command succeeds
    once the cause is gone."""
    from svco.commands.data import shard_writer

    images, records, shards = tmp_path / "i", tmp_path / "r.jsonl", tmp_path / "s"
    images.mkdir()
    for n in range(8):
        (images / f"{n}.jpg").write_bytes(jpeg(n))
    lines = [
        {"query": f"Q{n}?", "images": [f"{n}.jpg", f"{n + 1}.jpg"], "responses": ["x", "y"]} for n in range(0, 8, 2)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ["data", "import", "jsonl", tmp_path / "mine.jsonl", "--images", images, "-o", records]
    assert svco(monkeypatch, *run) == 0
    build = [
        "data",
        "build",
        records,
        "--images",
        images,
        "--val",
        0.25,
        "--heldout",
        0.25,
        "--pairs-per-shard",
        1,
        "-o",
        shards,
    ]
    for failure in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        written = []

        def fails(pairs, path, pictures, failure=failure, written=written, right=shard_writer.write_shard):
            if path.name.startswith("train"):
                raise failure
            right(pairs, path, pictures)
            written.append(path)

        with monkeypatch.context() as patched:
            patched.setattr(shard_writer, "write_shard", fails)
            assert svco(patched, *build) == (2 if isinstance(failure, OSError) else 130)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "mine.jsonl", "r.jsonl", "s.unfinished"]
        assert len(written) == (2 if isinstance(failure, OSError) else 0), "what is whole is not written again"
    said = " ".join(capsys.readouterr().err.split())
    assert "No space left on device" in said
    assert "what is done is kept in" in said
    assert svco(monkeypatch, *build) == 0
    assert "of an unfinished build were used: 8 pictures, 2 shards" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "mine.jsonl", "r.jsonl", "s"]
    assert svco(monkeypatch, *build) == 2, "what is whole is not overwritten"
    assert "already holds shards" in capsys.readouterr().err
    corrupt = ["data", "corrupt", shards, "--kind", "grey", "-o", tmp_path / "vlf"]
    (tmp_path / "vlf").write_text("a file in its place")
    assert svco(monkeypatch, *corrupt) == 2
    (tmp_path / "vlf").unlink()
    assert svco(monkeypatch, *corrupt) == 0
    # An import that fails leaves the records of the one before.
    before = records.read_bytes()
    (tmp_path / "mine.jsonl").write_text(json.dumps(lines[0]) + "\n{")
    assert svco(monkeypatch, *run) == 2
    assert records.read_bytes() == before


def test_pictures_that_are_one_are_left_out_of_a_build(tmp_path, monkeypatch, capsys):
    images, shards = tmp_path / "i", tmp_path / "s"
    images.mkdir()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (images / f"{name}.jpg").write_bytes(jpeg(seed)) if name != "b" else (images / "b.jpg").write_bytes(
            (images / "a.jpg").read_bytes()
        )
    lines = [{"query": "Q?", "images": [f"{x}.jpg", f"{y}.jpg"], "responses": ["x", "y"]} for x, y in ("ab", "ac")]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build = ["data", "build", tmp_path / "r.jsonl", "--images", images, "--val", 0, "--heldout", 0, "-o", shards]
    assert svco(monkeypatch, *build) == 0
    said = capsys.readouterr().out
    assert "0 unreadable, 0 repeated, 1 no contrast" in said
    assert "left out (same-images): a.jpg and b.jpg show the same" in said
    assert len(ShardSet.open(str(shards))) == 1
    (tmp_path / "r.jsonl").write_text(json.dumps(lines[0]))
    assert svco(monkeypatch, *build[:-1], tmp_path / "t") == 2
    assert "No pair is a contrast" in capsys.readouterr().err


def test_two_that_fill_one_folder_do_not_mix(tmp_path):
    target = tmp_path / "shards"
    with pytest.raises(UserError, match="already holds shards"), filling(target) as slow:
        (slow / "train-000000.tar").write_bytes(b"slow")
        target.mkdir()  # another process, which was faster
        (target / "train-000000.tar").write_bytes(b"quick")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    assert (target / "train-000000.tar").read_bytes() == b"quick"

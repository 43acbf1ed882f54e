"""``svco data corrupt``: VLF-type pairs of any shards, through verify, and what is refused."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from svco import cli
from svco.data.corruption import corrupt
from svco.data.pairs import Pair
from svco.data.pictures import decode_image
from svco.data.shards import ShardSet, write_shards
from svco.recipe.config import CorruptConfig


@pytest.fixture
def svco(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments):
        """Runs the console script in this process; its exit code."""
        monkeypatch.setattr(sys, "argv", ["svco", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code

    return run


@pytest.mark.parametrize(("kind", "side"), [("crop", 0), ("noise", 1), ("grey", 0)])
def test_round_trip(svco, shards, tmp_path, make_pairs, kind, side):
    write_shards(make_pairs("val", 0, 4), shards, "val", 4)
    out = tmp_path / "out"
    assert not svco("corrupt", shards, "-o", out, "--kind", kind, "--side", side, "--pairs-per-shard", 8)
    assert sorted(p.name for p in out.glob("*.tar")) == [
        *(f"train-{n:06d}.tar" for n in range(3)), "val-000000.tar"
    ]  # fmt: skip
    assert len(list(out.glob("*.index.json"))) == 4
    assert svco("verify", out) == 0, "also for grey, where every corrupted picture is the same"
    before, after = ShardSet.open(str(shards)), ShardSet.open(str(out))
    assert len(after) == len(before) == 24
    for number in range(24):
        source, made = before.read(number), after.read(number)
        ours, theirs = made.text, source.text
        for name in ("key", "query", "contrast", "kind", "source", "system"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.responses == (theirs.responses[side], theirs.responses[1 - side])
        assert made.images[0] == source.images[side], "the kept image's bytes stay"
        told = ours.facts["corrupted"]
        assert (told["kind"], told["side"], told["of"]) == (kind, 1, side)
        assert ours.facts.keys() == {"corrupted"}, "nothing is said of a picture that is not shown any more"
        wanted = corrupt(decode_image(source.images[side], ""), ours.key, side, CorruptConfig(kind))
        shown = decode_image(made.images[1], "")
        # JPEG at quality 95 with halved colour: close, and of another side's or key's draw it is not.
        assert shown.size == wanted.size
        grey = [np.asarray(image.convert("L"), float) for image in (shown, wanted)]
        assert np.abs(grey[0] - grey[1]).mean() < 4
    manifest = json.loads((out / "MANIFEST.json").read_text())
    assert manifest["pairs"] == {"train": 20, "val": 4}
    again = tmp_path / "again"
    svco("corrupt", shards, "-o", again, "--kind", kind, "--side", side, "--pairs-per-shard", 8)
    for path in out.glob("*.tar"):
        assert path.read_bytes() == (again / path.name).read_bytes(), "equal settings, equal bytes"
    if kind != "grey":
        svco("corrupt", shards, "-o", tmp_path / "seed", "--kind", kind, "--side", side, "--seed", 1)
        assert ShardSet.open(str(tmp_path / "seed")).read(0).images[1] != after.read(0).images[1]


def test_bad_pairs_are_named_and_bounded(svco, tmp_path, make_pairs, capsys):
    pairs = make_pairs("train", 0, 10)
    pairs[3] = Pair(pairs[3].text, (b"no picture", pairs[3].images[1]))
    # Only the kept side is read: a broken other image does not matter, as it goes.
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    pairs[5] = Pair(pairs[5].text, (stream.getvalue(), b"no picture"))
    write_shards(pairs, tmp_path / "bad", "train", 10)
    out, key = tmp_path / "out", pairs[3].text.key
    assert svco("corrupt", tmp_path / "bad", "-o", out) != 0
    told = capsys.readouterr().err
    assert key in told and "--max-unreadable" in told and "Traceback" not in told
    assert not out.exists() and not list(tmp_path.glob(".out*")), "nothing half-made is left"
    assert not svco("corrupt", tmp_path / "bad", "-o", out, "--max-unreadable", "0.1")
    assert f"left out: undecodable-image: sample {key!r}" in capsys.readouterr().out
    assert len(ShardSet.open(str(out))) == 9
    assert svco("corrupt", tmp_path / "bad", "-o", out, "--max-unreadable", "0.1") != 0
    assert "already holds shards" in capsys.readouterr().err

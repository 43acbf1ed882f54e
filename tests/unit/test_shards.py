"""Shards on disk: ordinary WebDataset tars, read by index; every kind of damage named."""

import hashlib
import io
import json
import os
import pickle
import tarfile

import pytest
import webdataset

from svco.basics.errors import BadSample, UserError
from svco.basics.files import beside
from svco.data.pairs import decode_text, encode_text
from svco.data.pictures import decode_image
from svco.data.shards import ShardSet, expand, write_shards


def rewrite(source, target, change):
    """Copies a tar member by member; ``change(name, data)`` gives new data, or None to leave the member out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = change(member.name, old.extractfile(member).read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))


def test_read_back_and_plain_webdataset(shards, make_pairs):
    pairs = make_pairs("train", 0, 20)
    opened = ShardSet.open(str(shards))
    assert opened.shard_sizes == (7, 7, 6)
    assert [opened.read(i) for i in range(20)] == pairs
    assert opened.read_text(13) == pairs[13].text
    assert opened.image_sizes(3) == ((48, 48), (48, 48))
    again = pickle.loads(pickle.dumps(opened))
    assert again.read(19) == pairs[19]
    urls = [str(p) for p in sorted(shards.glob("*.tar"))]
    plain = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in plain] == [p.text.key for p in pairs]
    assert [(s["0.jpg"], s["1.jpg"], s["pair.json"]) for s in plain] == [
        (*p.images, encode_text(p.text)) for p in pairs
    ]


def test_bytes_are_deterministic_and_digest_ignores_the_place(shards, tmp_path, make_pairs):
    write_shards(make_pairs("train", 0, 20), tmp_path / "other", "train", 7)
    for path in shards.glob("*.tar"):
        assert (
            hashlib.sha256(path.read_bytes()).digest()
            == hashlib.sha256((tmp_path / "other" / path.name).read_bytes()).digest()
        )
    assert ShardSet.open(str(shards)).digest == ShardSet.open(str(tmp_path / "other")).digest
    write_shards(make_pairs("train", 1, 20), tmp_path / "third", "train", 7)
    assert ShardSet.open(str(tmp_path / "third")).digest != ShardSet.open(str(shards)).digest


def test_expand(shards, monkeypatch):
    monkeypatch.chdir(shards)
    names = tuple(f"train-{i:06d}.tar" for i in range(3))
    assert expand("train-{000000..000002}.tar") == names
    assert expand(["train-000002.tar", "train-00000[01].tar"]) == (names[2], *names[:2])
    assert expand(str(shards)) == tuple(str(shards / name) for name in names)
    assert expand("http://host/t-{0..1}.tar") == ("http://host/t-0.tar", "http://host/t-1.tar")
    for nothing in ("val-*.tar", "train-{000000..000009}.tar", "elsewhere/x.tar"):
        with pytest.raises(UserError, match="No shards match"):
            expand(nothing)
    with pytest.raises(UserError, match="twice"):
        ShardSet.open([names[0], names[0]])


def test_index_is_rebuilt_when_the_shard_changes(shards, tmp_path):
    tar = shards / "train-000000.tar"
    before = ShardSet.open(str(tar))
    index = tar.with_name(tar.name + ".index.json")
    stored = json.loads(index.read_text())
    os.utime(tar, ns=(1, 1))  # a fresh checkout: other time, same contents
    assert ShardSet.open(str(tar)).digest == before.digest
    rewrite(tar, tmp_path / "new.tar", lambda name, data: None if name.startswith("train-000003") else data)
    (tmp_path / "new.tar").replace(tar)
    with pytest.warns(UserWarning, match="other contents than when it was indexed; its index is made anew"):
        assert len(ShardSet.open(str(tar))) == 6
    index.write_text(json.dumps(stored | {"mark": json.loads(index.read_text())["mark"]}))  # of another shard
    with pytest.warns(UserWarning, match=r"index\.json cannot be read .*it is made anew"):
        assert len(ShardSet.open(str(tar))) == 6


def test_read_only_folder_uses_the_cache(shards, tmp_path, monkeypatch):
    for index in shards.glob("*.index.json"):
        index.unlink()
    # root may write anywhere, so the folder refuses by a name that is taken
    for tar in shards.glob("*.tar"):
        beside(tar.with_name(f"{tar.name}.index.json")).mkdir()
    opened = ShardSet.open(str(shards), tmp_path / "cache")
    assert not list(shards.glob("*.index.json"))
    assert len(list((tmp_path / "cache" / "indices").glob("*.json"))) == 3
    assert ShardSet.open(str(shards), tmp_path / "cache") == opened


@pytest.mark.parametrize("keep", [0.5, "between", "end", 100])
def test_cut_tar_names_shard_and_remedy(shards, keep):
    tar = shards / "train-000001.tar"
    data = tar.read_bytes()
    with tarfile.open(tar) as archive:
        between = archive.getmembers()[6].offset  # exactly between two samples
    tar.write_bytes(data[: {0.5: len(data) // 2, "between": between, "end": len(data.rstrip(b"\0")), 100: 100}[keep]])
    with pytest.raises(UserError, match=r"train-000001\.tar is cut short.*Copy it again"):
        ShardSet.open(str(shards))


def test_missing_shard_and_no_tar(tmp_path):
    (tmp_path / "x.tar").write_text("hello " * 500)
    with pytest.raises(UserError, match="no tar file"):
        ShardSet.open(str(tmp_path / "x.tar"))


@pytest.mark.parametrize(
    ("member", "data", "reason"),
    [
        ("1.jpg", None, "missing-member"),
        ("pair.json", None, "missing-member"),
        ("pair.json", b"{", "bad-json"),
        ("pair.json", b'{"schema": 7}', "bad-schema"),
        ("pair.json", b"[]", "bad-schema"),
    ],
)
def test_bad_samples_are_named(shards, tmp_path, member, data, reason):
    tar = shards / "train-000000.tar"
    rewrite(tar, tmp_path / "new.tar", lambda name, old: data if name == f"train-000002.{member}" else old)
    opened = ShardSet.open(str(tmp_path / "new.tar"))
    assert len(opened) == 7, "a bad sample keeps its place"
    with pytest.raises(BadSample) as error:
        opened.read(2)
    assert error.value.reason == reason
    assert "train-000002" in str(error.value)
    assert "new.tar" in str(error.value)
    assert opened.read(3).text.key == "train-000003"
    copy = pickle.loads(pickle.dumps(error.value))
    assert (copy.reason, str(copy)) == (reason, str(error.value))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"responses": ["a", " "]}, "empty-response"),
        ({"responses": ["a"]}, "bad-schema"),
        ({"query": ""}, "bad-schema"),
        ({"contrast": "colour"}, "bad-schema"),
        ({"ids": []}, "bad-schema"),
    ],
)
def test_text_schema(make_pairs, change, reason):
    text = make_pairs("train", 0, 1)[0].text
    with pytest.raises(BadSample) as error:
        decode_text("k", json.dumps(json.loads(encode_text(text)) | change).encode(), "x.tar")
    assert error.value.reason == reason


def test_damaged_images(make_pairs):
    data = make_pairs("train", 0, 1)[0].images[0]
    assert decode_image(data, "x").size == (48, 48)
    for damaged in (data[: len(data) // 2], b"", b"GIF89a", data[:20] + b"\0" * 200):
        with pytest.raises(BadSample, match="x cannot be decoded"):
            decode_image(damaged, "x")


def test_home_folder(shards, monkeypatch):
    monkeypatch.setenv("HOME", str(shards.parent))
    assert expand("~/shards/train-{000000,000002}.tar") == tuple(str(shards / f"train-00000{i}.tar") for i in (0, 2))
    assert expand("~/shards") == expand(str(shards))


def test_replaced_while_in_use(shards):
    opened = ShardSet.open(str(shards / "train-000000.tar"))
    with (shards / "train-000000.tar").open("ab") as tar:
        tar.write(bytes(10240))
    with pytest.raises(UserError, match=r"train-000000\.tar was replaced while it was in use"):
        opened.read(0)

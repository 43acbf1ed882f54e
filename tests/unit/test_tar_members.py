"""Tars as people and programs make them: read past, or refused by name, by every way in alike."""

import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.basics.errors import UserError
from svco.cli import main
from svco.data.shards import ShardSet, expand, write_shards
from svco.tiny_world.contrast import world_pairs

LONG = "a folder whose name is long/" * 8


def add(archive, name, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in more.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder with one shard of 7 pairs."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(world_pairs("train", 0, 7), folder, "train", 7)
    return folder


@pytest.fixture(scope="module")
def contents(shards):
    """[(name, bytes)] of its members."""
    with tarfile.open(shards / "train-000000.tar") as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def written(path, contents, before=(), after=(), rename=str, **kind):
    """A tar of ``contents``, with further members [(name, data, fields)]."""
    with tarfile.open(path, "w", **kind) as archive:
        for name, data, fields in before:
            add(archive, name, data, **fields)
        for name, data in contents:
            add(archive, rename(name), data)
        for name, data, fields in after:
            add(archive, name, data, **fields)
    return path


def beside(name):
    folder, _, base = name.rpartition("/")
    return f"{folder}/._{base}" if folder else f"._{base}"


AS_THEY_COME = {
    "macOS": lambda c: {
        "before": [("./._x", b"Mac OS X", {}), (".DS_Store", b"Bud1", {}), ("__MACOSX/._a", b"", {})],
        "after": [(beside(name), b"\0\5\26\7", {}) for name, _ in c],
    },
    "./ in front": lambda c: {"rename": "./{}".format, "before": [("./", b"", {"type": tarfile.DIRTYPE})]},
    "documents": lambda c: {"before": [("README.md", b"# Pairs", {}), ("LICENSE", b"MIT", {})]},
    "documents within": lambda c: {"after": [("train-000006.txt", b"a caption", {}), ("docs/a.b", b"", {})]},
    "other members of a sample": lambda c: {"after": [("train-000006.0.json", b"{}", {})]},
    "folders": lambda c: {"before": [("x", b"", {"type": tarfile.DIRTYPE}), ("x/y/", b"", {"type": tarfile.DIRTYPE})]},
    "large letters": lambda c: {"rename": lambda name: name.replace(".jpg", ".JPG")},
    "pax": lambda c: {"format": tarfile.PAX_FORMAT, "rename": (LONG + "{}").format},
    "pax with times and comments": lambda c: {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "ü" * 999}},
    "gnu": lambda c: {"format": tarfile.GNU_FORMAT, "rename": (LONG + "{}").format},
    "ustar": lambda c: {"format": tarfile.USTAR_FORMAT},
}


@pytest.mark.parametrize("case", AS_THEY_COME)
def test_read_past_what_is_beside_pairs(case, contents, shards, tmp_path):
    tar = written(tmp_path / "x.tar", contents, **AS_THEY_COME[case](contents))
    plain, opened = ShardSet.open(str(shards / "train-000000.tar")), ShardSet.open(str(tar))
    assert [opened.read(i).images for i in range(len(opened))] == [plain.read(i).images for i in range(7)]
    assert [opened.key(i) for i in range(7)] == [
        AS_THEY_COME[case](contents).get("rename", str)(plain.key(i)).removeprefix("./") for i in range(7)
    ]


def behind(name, data=b"", **fields):
    """One more member."""
    return lambda contents: {"after": [(name, data, fields)]}


def pax(**headers):
    """One more member, with these headers of its own."""
    return behind(
        "t.0.jpg", b"0\n" * 256, pax_headers={name.replace("_", "."): value for name, value in headers.items()}
    )


SPARSE = {"GNU_sparse_major": "1", "GNU_sparse_minor": "0", "GNU_sparse_name": "t.0.jpg", "GNU_sparse_realsize": "99"}
REFUSED = {
    "a member twice": (lambda c: {"after": [(*c[-1], {})]}, r"holds 'train-000006\.\S+' twice"),
    "and once with ./": (behind("./train-000006.0.jpg"), "twice"),
    "and once in large letters": (behind("train-000006.0.JPG"), "twice"),
    "a key twice": (behind("train-000003.0.jpg"), "holds the key 'train-000003' twice"),
    "a link": (behind("t.0.jpg", type=tarfile.SYMTYPE, linkname="x"), r"'t\.0\.jpg', which is a symbolic link"),
    "a hard link": (behind("t.0.jpg", type=tarfile.LNKTYPE, linkname="x"), r"'t\.0\.jpg', which is a hard link"),
    "a device": (behind("t.0.jpg", type=tarfile.CHRTYPE), "is a device"),
    "a pipe": (behind("pipe", type=tarfile.FIFOTYPE), "'pipe', which is a named pipe"),
    "a sparse file": (pax(**SPARSE), r"'t\.0\.jpg', which is a sparse file"),
    "an absolute name": (lambda c: {"rename": "/data/{}".format}, "the name '/data/.*leads out of it"),
    "a name that leads up": (lambda c: {"rename": "a/../../{}".format}, "the name 'a/../../.*leads out of it"),
    "a name that is no text": (
        lambda c: {**behind("\udcff.0.jpg")(c), "format": tarfile.GNU_FORMAT},
        r"'\\udcff', which is no text in UTF-8",
    ),
    "a name over two lines": (behind("a\nb.0.jpg"), r"'a\\nb', which"),
    "a number without end": (pax(comment="1" * 9999), "a number of more than 100 digits"),
    "a header without end": (pax(comment="x" * 99999), "longer than 65536 bytes"),
    "nothing of a pair": (
        lambda c: {"rename": lambda name: name.replace(".", "_")},
        "hold no samples at all, but other files, such as 'train-000000_0_jpg'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case, contents, tmp_path):
    change, message = REFUSED[case]
    tar = written(tmp_path / "x.tar", contents, **change(contents))
    with pytest.raises(UserError, match=message) as error:
        ShardSet.open(str(tar))
    assert str(tar) in str(error.value)


def damaged_header(data):
    """With one bit of the header of the fourth sample turned: tarfile by itself ends there, without a word."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        place = archive.getmembers()[9].offset
    return data[: place + 3] + bytes([data[place + 3] ^ 1]) + data[place + 4 :]


def negative(data):
    """With a size below zero in the fourth header, its sum made right: tarfile by itself goes back and never ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        place = archive.getmembers()[9].offset
    header = bytearray(data[place : place + 512])
    header[124:136] = (-2048 % 256**12).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


BYTES = {
    "joined": (lambda data: data + data, "goes on behind its end.*another one begins.*--concatenate"),
    "something behind": (lambda data: data + b"x" * 700, "goes on behind its end.*something follows that is none"),
    "a damaged header": (damaged_header, r"is cut short or is no tar file: the header at byte \d+ is damaged"),
    "a size below zero": (negative, "is cut short or is no tar file"),
    "gzip": (gzip.compress, r"is packed with gzip\. Unpack it \(gunzip\)"),
    "xz": (lzma.compress, "is packed with xz"),
    "a web page": (lambda data: b"\xef\xbb\xbf\n<!DOCTYPE html>", "is a web page"),
    "git-lfs": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "empty": (lambda data: b"", "is cut short or is no tar file: empty file"),
    "zeros": (lambda data: bytes(10240), "hold no samples at all"),
}


@pytest.mark.parametrize("case", BYTES)
def test_found_and_said(case, shards, tmp_path, monkeypatch, capsys):
    change, message = BYTES[case]
    tar = tmp_path / "x.tar"
    tar.write_bytes(change((shards / "train-000000.tar").read_bytes()))
    with pytest.raises(UserError, match=message):
        ShardSet.open(str(tar))
    # the command line says the same, without a traceback
    monkeypatch.setattr("sys.argv", ["svco", "data", "verify", str(tar)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert str(tar) in capsys.readouterr().err.replace("\n", " ")


def test_a_folder_of_packed_shards(shards, tmp_path):
    (tmp_path / "p").mkdir()
    for tar in shards.glob("*.tar"):
        (tmp_path / "p" / f"{tar.name}.gz").write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(UserError, match=r"holds the packed shard train-000000\.tar\.gz\. Unpack it"):
        expand(str(tmp_path / "p"))
    for tar in shards.glob("*.tar"):  # gunzip --keep
        shutil.copy(tar, tmp_path / "p")
    assert len(expand(str(tmp_path / "p"))) == 1


@pytest.mark.skipif(shutil.which("tar") is None, reason="NOT TESTED: needs tar")
def test_what_tar_itself_writes(contents, tmp_path):
    """GNU tar over a folder of files: ./ in front, a folder first, owners and times; and joined as the message says."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in contents:
        (folder / name).write_bytes(data)
    one, two = tmp_path / "1.tar", tmp_path / "2.tar"
    subprocess.run(["tar", "-C", folder, "--sort=name", "-cf", one, "."], check=True)
    assert len(ShardSet.open(str(one))) == 7
    for name, data in contents:
        (folder / name).unlink()
        (folder / name.replace("train", "more")).write_bytes(data)
    subprocess.run(["tar", "-C", folder, "--sort=name", "-cf", two, "."], check=True)
    (tmp_path / "both.tar").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(UserError, match="--concatenate"):
        ShardSet.open(str(tmp_path / "both.tar"))
    subprocess.run(["tar", "--concatenate", "--file", one, two], check=True)
    with pytest.warns(UserWarning, match="its index is made anew"):
        assert len(ShardSet.open(str(one))) == 14


def test_what_was_read_past_is_counted(contents, tmp_path, monkeypatch, capsys):
    tar = written(tmp_path / "x.tar", contents, **AS_THEY_COME["documents"](contents))
    assert ShardSet.open(str(tar)).passed == "2 files that are no part of a pair, such as 'README.md'"
    assert ShardSet.open(str(tar)).passed, "from the index as well"
    assert json.loads((tmp_path / "x.tar.index.json").read_text())["passed"] == [2, "README.md"]
    monkeypatch.setattr("sys.argv", ["svco", "data", "verify", str(tar)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "read past: 2 files that are no part of a pair" in out
    assert "every byte of 1 shards was read; 0 of them a MANIFEST.json tells of" in out


KINDS = {
    "folder": tarfile.DIRTYPE,
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.BLKTYPE,
    "named pipe": tarfile.FIFOTYPE,
}
FOLDERS = st.sampled_from(["", "", "./", "a/", "./ü b/", "/", "../", "a/../b/", "x" * 120 + "/", "__MACOSX/"])
NAMES = st.sampled_from(
    ["k.0.jpg", "k.1.jpg", "k.pair.json", "K.1.JPG", "l.0.jpg", "l.txt", "._k.0.jpg", ".DS_Store", "README", ".0.jpg"]
)
FILES = st.lists(st.tuples(FOLDERS, NAMES, st.sampled_from(["file"] * 12 + list(KINDS))), max_size=7)


def outcome(files):
    """What must come of ``files``, by the rules of data_shards/README.md: {key: members}, or a word of the refusal."""
    samples, last, twice = {}, None, False
    for folder, name, kind in files:
        if name.startswith("._") or name == ".DS_Store" or "__MACOSX" in folder:
            continue
        if folder.startswith("/") or ".." in folder:
            return "leads out"
        if kind == "folder":
            continue
        if kind != "file":
            return kind
        key, _, member = name.partition(".")
        key, member = folder.removeprefix("./") + key, member.lower()
        if member not in ("0.jpg", "1.jpg", "pair.json") or name.startswith("."):
            continue
        twice |= key in samples and (member in samples[key] or key != last)
        last = key
        samples.setdefault(key, set()).add(member)
    return "twice" if twice else samples or "no samples at all"


@settings(max_examples=60, deadline=None)
@given(FILES, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_any_mixture_of_members(files, form):
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "x.tar"
        more = [
            (front + name, name.encode(), {"type": KINDS[kind]} if kind != "file" else {})
            for front, name, kind in files
        ]
        written(
            tar, [], after=[(name, data if not fields else b"", fields) for name, data, fields in more], format=form
        )
        expected = outcome(files)
        if isinstance(expected, str):
            with pytest.raises(UserError, match=expected):
                ShardSet.open(str(tar))
        else:
            opened = ShardSet.open(str(tar))
            assert {entry.key: set(entry.members) for entry in opened.indices[0].entries} == expected
            for entry in opened.indices[0].entries:
                for offset, size in entry.members.values():
                    assert tar.read_bytes()[offset : offset + size] in {name.encode() for _, name, _ in files}

"""Files that are damaged, that are replaced whole, and that are not ours."""

from pathlib import Path

import numpy as np
import pytest
from places import BASE

from svco.basics.errors import UserError
from svco.basics.files import replacing, write_whole
from svco.basics.progress import silent
from svco.basics.sealed import read_arrays, sealed, unsealed, write_arrays
from svco.commands.evaluation.scoring import SetScores
from svco.export import Wanted, export
from svco.run.cached_reference import ReferenceCache


@pytest.mark.parametrize("left", ["nothing", "text", "a beginning", "other arrays", "a flipped bit"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a file left open
def test_damaged_arrays_are_one_error(tmp_path, left):
    path = tmp_path / "arrays.npz"
    write_arrays(path, key=np.arange(50))
    assert (read_arrays(path, "key")[0] == np.arange(50)).all()
    whole = path.read_bytes()
    flipped = bytes([*whole[:200], whole[200] ^ 1, *whole[201:]])
    kinds = {
        "nothing": b"",
        "text": b"damaged",
        "a beginning": whole[:300],
        "other arrays": whole,
        "a flipped bit": flipped,
    }
    path.write_bytes(kinds[left])
    with pytest.raises(ValueError):
        read_arrays(path, "key", "logps" if left == "other arrays" else "key")
    with pytest.raises(UserError, match="does not hold scores of an evaluation"):
        SetScores.load(path)


def reference(path):
    cache = ReferenceCache.open(path.parent, {"weights": "abc"}, 2)
    if not path.exists():
        cache.put(np.arange(2), np.arange(2), np.full((2, 2, 3), -1.5, np.float32))
        cache.save({"weights": "abc"})
        cache.path.rename(path)
    return cache


def reads_reference(path):
    name = ReferenceCache.open(path.parent / "none", {"weights": "abc"}, 2).path.name
    cache = ReferenceCache.open(path.rename(path.with_name(name)).parent, {"weights": "abc"}, 2)
    return [cache.logps.tolist(), cache.done.tolist()]


READ_BACK = {
    "arrays": (lambda path: write_arrays(path, a=np.arange(3), b=np.array(["x", ""])), lambda path: [
        array.tolist() for array in read_arrays(path, "a", "b")
    ]),
    "sealed": (lambda path: write_whole(path, sealed({"file 12 3": "abc"})), lambda path: unsealed(path.read_text())),
    "reference": (reference, reads_reference),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ_BACK)
def test_no_flipped_bit_is_read(tmp_path, kind):
    """Of every byte of each kind of file: what is read back is what was written, or an error."""
    write, read = READ_BACK[kind]
    first = tmp_path / "first" / "file"
    first.parent.mkdir()
    write(first)
    whole = first.read_bytes()
    truth, refused = read(first), 0
    for place in range(len(whole)):
        path = tmp_path / "flipped" / "file"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([*whole[:place], whole[place] ^ (1 << place % 8), *whole[place + 1 :]]))
        try:
            assert read(path) == truth, place
        except (ValueError, UserError):
            refused += 1
    assert refused > len(whole) / 3, "the control: such bits matter"


def test_what_fails_leaves_nothing_and_what_is_not_ours_stays(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    (tmp_path / "file.tmp").write_text("somebody's")
    write_whole(file, "before")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(OSError, match="not empty"), replacing(folder) as temporary:
        temporary.mkdir()
        folder.mkdir()
        (folder / "theirs").touch()  # while ours was being made
    assert file.read_text() == "before" and (folder / "theirs").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.tmp", "folder"]


def test_an_export_looks_at_its_target_first(tmp_path, monkeypatch):
    """Before it reads a weight; and a folder X.tmp beside it is none of its business."""
    (tmp_path / "here").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "notes").touch()
    monkeypatch.chdir(tmp_path / "here")
    for target, says in (
        (".", "cannot be replaced"),
        ("../link", "cannot be replaced"),
        ("/proc", "cannot be replaced"),
        ("../full", "not empty"),
    ):
        with pytest.raises(UserError, match=says):
            export(Wanted(BASE, to=Path(target)), silent)
    assert export(Wanted(BASE, to=tmp_path / "out"), silent) == tmp_path / "out"
    assert (tmp_path / "out.tmp" / "notes").exists() and (tmp_path / "out" / "config.json").exists()

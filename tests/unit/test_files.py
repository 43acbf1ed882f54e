"""Files that are damaged, that are replaced whole, and that are not ours."""

from pathlib import Path

import numpy as np
import pytest
from places import BASE

from svco.basics.errors import UserError
from svco.basics.files import read_arrays, replacing, write_whole
from svco.basics.progress import silent
from svco.commands.evaluation.scoring import SetScores
from svco.export import Wanted, export


@pytest.mark.parametrize("left", ["nothing", "text", "a beginning", "other arrays", "a flipped bit"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a file left open
def test_damaged_arrays_are_one_error(tmp_path, left):
    path = tmp_path / "arrays.npz"
    np.savez(path, key=np.arange(50))
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

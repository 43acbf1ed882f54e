"""A disk that says no: told with the file, what it needs and has, and what to do; nothing is left behind, and no traceback."""

import ast
import errno
import gc
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from places import ROOT
from safetensors.torch import save_file

from svco.basics.disk import disk_error
from svco.basics.errors import UserError, exit_codes
from svco.basics.files import CannotWrite, append, replacing, write_whole, writing
from svco.cli import main
from svco.record.board import Board

LARGE = torch.zeros(100_000)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A disk of 200 kB, most of it free."""
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a small disk cannot be mounted here ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_folder(path):
    path.mkdir()
    (path / "part").write_bytes(bytes(400_000))


def save_arrays(path):
    with path.open("wb") as stream:
        np.savez(stream, a=LARGE.numpy())


WRITES = {
    "whole": lambda path: write_whole(path, "x" * 400_000),
    "durable": lambda path: write_whole(path, "x" * 400_000, durable=True),
    "append": lambda path: append(path, "x" * 400_000),
    "torch": lambda path: torch.save(LARGE, path),
    "torch, many": lambda path: torch.save([torch.zeros(9000), LARGE], path),
    "safetensors": lambda path: save_file({"a": LARGE}, path),
    "numpy": save_arrays,
    "folder": fill_folder,
}
"""Who writes -> 400 kB written by it."""


@pytest.mark.parametrize("who", WRITES)
def test_a_full_disk_is_told_with_file_need_and_room(small_disk, who):
    path = small_disk / "file"
    if who in ("whole", "durable", "append"):
        with pytest.raises(CannotWrite) as told:
            WRITES[who](path)
        assert not path.exists() or not path.stat().st_size, "no part of it"
        assert "It takes 400.0 kB, and " in str(told.value)
        path.unlink(missing_ok=True)
    else:
        with pytest.raises(CannotWrite) as told, replacing(path, need=400_000) as temporary:
            WRITES[who](temporary)
    assert str(told.value).startswith(f"{path} cannot be written: No space left on device. It takes 400.0 kB, and ")
    assert "are free on its disk. Free some there" in str(told.value) and told.value.errno == errno.ENOSPC
    assert not list(small_disk.iterdir())


def test_a_runs_numbers_on_a_full_disk(small_disk, capfd):
    """Both files of them are written by who hears of it: no thread ends in a traceback of its own."""
    gc.collect()  # torch closes a file that it could not write when it is collected
    board, lines = Board(small_disk, True), {f"number-{n}": float(n) for n in range(50)}
    with pytest.raises(CannotWrite, match=f"{small_disk}/(metrics.jsonl|tensorboard/events).* cannot be written"):
        for step in range(1000):
            board.write(step, lines)
    written = (small_disk / "metrics.jsonl").read_text()
    assert written.endswith("\n") and json.loads(written.splitlines()[-1])["number-49"] == 49.0
    assert "Traceback" not in capfd.readouterr().err
    shutil.rmtree(small_disk / "tensorboard")
    (small_disk / "metrics.jsonl").unlink()


def test_there_is_room_after_all(small_disk):
    """The control: the same, of less."""
    gc.collect()  # torch closes a file that it could not write when it is collected
    write_whole(small_disk / "file", "x" * 40_000, durable=True)
    assert (small_disk / "file").stat().st_size == 40_000
    (small_disk / "file").unlink()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES])
def test_every_way_a_disk_says_no(tmp_path, number, capsys):
    """With the file where who writes says it, and at the last by the entry point; neither a traceback."""
    with (
        pytest.raises(UserError, match=f"^{tmp_path}/a cannot be written: {os.strerror(number)}"),
        writing(tmp_path / "a"),
    ):
        raise OSError(number, os.strerror(number))
    for error in (
        OSError(number, os.strerror(number), "/there/b"),
        RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})"),
    ):
        with pytest.raises(SystemExit) as ended, exit_codes():
            raise error
        said = capsys.readouterr().err
        assert ended.value.code == 2 and os.strerror(number) in " ".join(said.split()) and "Traceback" not in said
        assert "/there/b" in said or isinstance(error, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ECONNRESET, "reset"),
        RuntimeError("shape mismatch"),
        KeyError("a"),
        FileNotFoundError(2, "no", "x"),
    ],
)
def test_what_is_no_disks_doing_stays_what_it_is(tmp_path, capsys, error):
    assert disk_error(error) is None
    with pytest.raises(type(error)) as same, writing(tmp_path / "a"):
        raise error
    assert same.value is error
    with pytest.raises(SystemExit) as left, exit_codes():
        raise error
    said = capsys.readouterr().err
    assert left.value.code == 1 and "Traceback" in said and "cannot be written" not in said


def test_another_file_that_is_read_meanwhile_is_not_blamed_on_the_one_written(tmp_path):
    with pytest.raises(PermissionError) as same, writing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/base.safetensors")
    assert not isinstance(same.value, CannotWrite)


@pytest.mark.parametrize("place", ["missing/plan.json", "file/plan.json", "folder"])
def test_a_place_that_cannot_be_is_a_mistake_told(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    with pytest.raises(CannotWrite):
        write_whole(tmp_path / place, "{}")


WRITERS = {"write_text", "write_bytes", "savefig", "save_file", "save_checkpoint", "save_pretrained", "SummaryWriter"}
DOORS = {"writing", "replacing"}
EXCEPTED = ("tiny_world", "commands/bench/random_base.py", "commands/bench/data.py", "commands/bench/peer.py")
"""What makes trial models, into a folder that it was given for that."""


def written(node, guarded=False):
    """(line, what writes, whether inside a door) of each write in ``node``."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        guarded = guarded or any(getattr(call.func, "id", None) in DOORS for call in calls)
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = [
            word.value for word in [*node.args, *(k.value for k in node.keywords)] if isinstance(word, ast.Constant)
        ]
        opens = name == "open" and any(word in ("w", "wb", "a", "ab", "x", "xb", "r+", "r+b") for word in words)
        if name in WRITERS or opens:
            yield node.lineno, name, guarded
    for child in ast.iter_child_nodes(node):
        yield from written(child, guarded)


def test_every_write_is_by_a_door():
    """A table of all calls in svco/ that write a file: each stands inside ``writing`` or ``replacing``, which name it."""
    outside, inside = [], 0
    for path in (ROOT / "svco").rglob("*.py"):
        place = str(path.relative_to(ROOT / "svco"))
        if not place.startswith(EXCEPTED):
            found = list(written(ast.parse(path.read_text())))
            outside += [f"{place}:{line} {name}" for line, name, guarded in found if not guarded]
            inside += sum(guarded for _, _, guarded in found)
    assert not outside
    assert inside > 15, "the control: those by a door are found"


def test_a_command_ends_with_two(small_disk, monkeypatch, capsys):
    """``svco plan --json`` onto a full disk."""
    with (small_disk / "filler").open("wb", buffering=0) as stream, pytest.raises(OSError, match="space"):
        while True:
            stream.write(bytes(4096))
    words = ["svco", "plan", "llava15_13b_lora", "--ds", "zero3", "--json", str(small_disk / "plan.json")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    (small_disk / "filler").unlink()
    assert ended.value.code == 2
    assert f"{small_disk}/plan.json cannot be written" in " ".join(capsys.readouterr().err.split())

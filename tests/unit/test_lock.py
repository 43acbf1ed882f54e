"""One writer a run folder: real processes, killed, suspended and forked."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
from places import ROOT

from svco.basics.errors import UserError
from svco.record.lock import LOCK, FolderLock

OWNER = """
import sys, os, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from svco.record.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
assert lock.take()
if sys.argv[3] == "fork" and os.fork() == 0:
    time.sleep(60)  # a loader's worker that outlives its rank
print("taken", flush=True)
time.sleep(60)
"""


@contextmanager
def owner(folder, how="alone"):
    """A process that has the lock of ``folder``."""
    command = [sys.executable, "-c", OWNER, str(folder), str(ROOT), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_suspended_process_keeps_its_folder_and_a_killed_one_does_not(tmp_path):
    with owner(tmp_path) as process, FolderLock(tmp_path) as lock:
        assert not lock.take()
        process.send_signal(signal.SIGSTOP)
        assert not lock.take(), "suspended is not dead"
        process.kill()
        process.wait()
        assert lock.take()


def test_children_do_not_keep_it(tmp_path):
    with owner(tmp_path, "fork") as process, FolderLock(tmp_path) as lock:
        assert not lock.take()
        process.kill()
        process.wait()
        assert lock.take(), "the child still lives"


def test_who_was_taken_for_dead_stops_before_it_writes(tmp_path):
    """What storage without locks leaves: the mark on the file."""
    with FolderLock(tmp_path) as mine:
        assert mine.take()
        mine.check()
        (tmp_path / LOCK).write_text("elsewhere 7 another\n")
        with pytest.raises(UserError, match="belongs to another run now .host and process: elsewhere 7."):
            mine.check()
        (tmp_path / LOCK).unlink()
        with pytest.raises(UserError, match="is gone"):
            mine.check()

"""The folder of copies of remote shards, shared by many processes: fetched once, held while in use, bounded, nothing left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from web import Page, downloads

from svco.basics.errors import UserError
from svco.data.cache_room import LIMIT, limit, locked, users_of
from svco.data.remote import Version
from svco.data.shard_cache import copy_of
from svco.data.shards import ShardSet

OPEN = """
import sys, warnings
from svco.data.shards import ShardSet
warnings.simplefilter("error")
opened = ShardSet.open(sys.argv[1].split(), sys.argv[2])
print(opened.digest, flush=True)
sys.stdin.read()
print(opened.read(0).text.key)
"""


@pytest.fixture
def another():
    """(spec, cache) -> another process that has opened the shards and goes on when its stdin is closed."""
    started = []

    def start(spec, cache):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", OPEN, spec, str(cache)], **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def shards_in(cache):
    return sorted(path.name[17:] for path in (cache / "shards").glob("*.tar"))


def test_processes_that_begin_together_fetch_once(served, another, tmp_path):
    spec = served.url + "/train-{000000..000002}.tar"
    together = [another(spec, tmp_path / "cache") for _ in range(3)]
    digests = {process.stdout.readline() for process in together}
    assert len(digests) == 1, [process.stderr.read() for process in together]
    assert sorted(downloads(served)) == [f"/train-00000{i}.tar" for i in range(3)]
    assert [process.communicate("")[0] for process in together] == ["train-000000\n"] * 3
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".tar", ".json"}, "and no marks or locks"


def test_a_copy_in_use_is_not_replaced(served, other_tar, another, tmp_path):
    url, cache = served.url + "/train-000000.tar", tmp_path / "cache"
    running = another(url, cache)
    assert running.stdout.readline()
    served.pages["/train-000000.tar"] = Page(other_tar, headers={"ETag": '"new"'})
    with (
        pytest.warns(UserWarning, match="has changed since it was fetched"),
        pytest.raises(
            UserError, match=rf"the copy .*-train-000000\.tar is in use by \S+-{running.pid} \(host and process\)"
        ),
    ):
        ShardSet.open(url, cache)
    assert running.communicate("")[0] == "train-000000\n", "it has read what it opened"
    with pytest.warns(UserWarning, match="has changed since it was fetched"):
        assert ShardSet.open(url, cache).key(0) == "val-000000"


def test_what_a_killed_process_held_and_left_is_free(served, other_tar, another, tmp_path):
    url, cache = served.url + "/train-000000.tar", tmp_path / "cache"
    killed = another(url, cache)
    assert killed.stdout.readline()
    copy = copy_of(url, cache / "shards")
    left = copy.with_name(f".{copy.name}.{os.uname().nodename}-{killed.pid}.tmp")
    left.write_bytes(b"half")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list((cache / "users").iterdir())) == 1
    served.pages["/train-000000.tar"] = Page(other_tar, headers={"ETag": '"new"'})
    with pytest.warns(UserWarning, match="has changed since it was fetched"):
        assert ShardSet.open(url, cache).key(0) == "val-000000"
    assert not left.exists()
    assert len(list((cache / "users").iterdir())) == 1, "this process alone"


def test_bounded(served, another, tmp_path, monkeypatch):
    cache, sizes = tmp_path / "cache", [len(page.body) for page in served.pages.values()]
    urls = [f"{served.url}/train-00000{i}.tar" for i in range(3)]
    monkeypatch.setenv(LIMIT, str((sizes[0] + sizes[1] + 100) / 1e9))
    holding = another(urls[0], cache)
    assert holding.stdout.readline()
    ShardSet.open(urls[1], cache)
    users_of(cache / "shards").leave()
    assert shards_in(cache) == ["train-000000.tar", "train-000001.tar"]
    ShardSet.open(urls[2], cache)
    assert shards_in(cache) == ["train-000000.tar", "train-000002.tar"], "the one that nobody uses goes"
    assert len(list((cache / "shards").iterdir())) == 6, "with what lies beside it"
    with pytest.raises(UserError, match=rf"in use have 0\.000\d+ GB, and the copies in .* \({LIMIT}\)\. Raise {LIMIT}"):
        ShardSet.open(urls[1], cache)
    assert shards_in(cache) == ["train-000000.tar", "train-000002.tar"], "and nothing was fetched in vain"
    assert holding.communicate("")[0] == "train-000000\n"
    users_of(cache / "shards").leave()
    ShardSet.open(urls[1], cache)
    assert shards_in(cache) == ["train-000001.tar", "train-000002.tar"], "the one used longest ago goes"


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e400"])
def test_a_limit_that_is_none(text, monkeypatch):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(UserError, match=f"{LIMIT} is '{text}' in the environment"):
        limit()


def test_one_at_a_time(tmp_path):
    """Even though each takes the lock's file away when it is done."""
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (max(most), len(most)) == (1, 80)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_only_its_owner_may_write(served, tmp_path, monkeypatch):
    """What is there is used, by those who may not write there either."""
    cache = tmp_path / "cache"
    opened = ShardSet.open(served.url + "/train-000000.tar", cache)
    users_of(cache / "shards").leave()
    monkeypatch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert ShardSet.open(served.url + "/train-000000.tar", cache) == opened


def test_versions_of_sources():
    """By mark and size where both have a mark, by time and size else; what is not told is no difference."""
    known = Version(5, '"a"', "Mon")
    for other, differs in (
        (Version(5, '"a"', "Tue"), False),
        (Version(6, '"a"', "Mon"), True),
        (Version(5, '"b"', "Mon"), True),
        (Version(5, None, "Mon"), False),
        (Version(5, None, "Tue"), True),
        (Version(None, None, None), False),
    ):
        assert known.differs(other) == other.differs(known) == differs, other


def test_a_source_that_tells_no_version_is_said(served, tmp_path):
    page = served.pages["/train-000000.tar"]
    page.headers = {}
    ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    with pytest.warns(
        UserWarning, match=r"train-000000\.tar cannot be seen to change.*fetched anew, delete .*-train-000000\.tar"
    ):
        ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")


def test_a_record_that_is_none_is_no_trouble(served, tmp_path):
    url, cache = served.url + "/train-000000.tar", tmp_path / "cache"
    opened = ShardSet.open(url, cache)
    record = next(cache.rglob("*.source.json"))
    whole = json.loads(record.read_text())
    for text in (
        "",
        "[]",
        "{}",
        "[" * 99999,
        json.dumps(whole | {"version": {"colour": 1}}),
        json.dumps(whole | {"url": None}),
    ):
        record.write_text(text)
        assert ShardSet.open(url, cache) == opened

"""Shards into stores: whole or seen to be unfinished, gone on with, never mixed; then read by verify, runs and many processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import stores
from places import SHARDS

from svco import cli
from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.commands.data.target import check, filling
from svco.commands.data.verify import verify
from svco.data import remote
from svco.data.cache_room import LIMIT, leave_all
from svco.data.remote import MANIFEST, UPLOADING
from svco.data.shards import ShardSet, expand, write_shards
from svco.recipe.config import Config, DataConfig, ModelConfig
from svco.run.job import make_job

NAMES = ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]


@pytest.fixture(params=["memory", "s3"])
def store(request, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with stores.memory() if request.param == "memory" else stores.s3(monkeypatch) as found:
        yield found
    leave_all()


@pytest.fixture
def made(shards, make_pairs):
    """A folder as a build makes it: three shards of training, one of validation, indices and a manifest."""
    from svco.commands.data.build import described

    write_shards(make_pairs("val", 0, 4), shards, "val", 7)
    (shards / MANIFEST).write_text(json.dumps({"shards": described(sorted(shards.glob("*.tar")))}))
    return shards


@pytest.fixture
def other(tmp_path, make_pairs):
    """Another set, whose shards have the same names."""
    write_shards(make_pairs("heldout", 0, 20), tmp_path / "others", "train", 7)
    (tmp_path / "others" / MANIFEST).write_text("{}")
    return tmp_path / "others"


def upload(url, made):
    """What a build does when it has made its shards."""
    with filling(url) as folder:
        for path in made.iterdir():
            shutil.copyfile(path, folder / path.name)


def contents(made):
    return {path.name: path.read_bytes() for path in made.iterdir() if not path.name.endswith(".index.json")}


def test_there_and_back(store, made, tmp_path, monkeypatch, capsys):
    """As a user: shards are corrupted into the store, and verified, trained on and corrupted again from there."""
    url = f"{store.url}/grey"

    def svco(*arguments):
        monkeypatch.setattr(sys, "argv", ["svco", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code

    for target in (url, tmp_path / "here"):
        assert svco("corrupt", made, "-o", target, "--kind", "grey", "--pairs-per-shard", 7) == 0
    assert f"next: svco data verify {url}" in capsys.readouterr().out
    assert store.files(url) == contents(tmp_path / "here")
    assert [name for name in store.writes if name != UPLOADING] == [*NAMES, MANIFEST], (
        "what says that all is there is last"
    )
    assert not list((tmp_path / "home").rglob("*.tar"))
    before = len(store.writes)
    assert svco("corrupt", made, "-o", url) == 2
    assert "already holds shards" in capsys.readouterr().err
    assert len(store.writes) == before
    assert svco("verify", url) == 0
    assert "4 shards was read; 4 of them a MANIFEST.json tells of" in capsys.readouterr().out
    data = DataConfig(train=(url,), validation=(url,), cache_dir=str(tmp_path / "cache"))
    job = make_job(Config(data=data, model=ModelConfig(base=str(SHARDS / "tiny_llava"))), World(), silent)
    assert [len(job.splits[split].shards) for split in ("train", "validation")] == [20, 4]
    assert job.splits["train"].shards.digest == ShardSet.open(str(tmp_path / "here"), split="train").digest


FAULTS = [
    ("busy", 2, None),
    ("cut", 2, None),
    ("busy", 99, r"cannot be written: the server answers 503"),
    ("cut", 99, r"cannot be written: "),
    ("denied", 99, r"cannot be written: .*Access Denied"),
    ("full", 99, r"cannot be written: .*(full|507)"),
]


@pytest.mark.parametrize(("what", "times", "said"), FAULTS, ids=[f"{what}-{times}" for what, times, _ in FAULTS])
def test_a_store_that_fails(store, made, tmp_path, what, times, said):
    """Either it goes on, or nothing looks whole, the sentence says what to do, and the same command sends what is missing."""
    url = f"{store.url}/set"
    store.at("train-000001.tar", what, times)
    if said:
        with pytest.raises(UserError, match=rf"{url}/train-000001\.tar {said}.*Repeat the command"):
            upload(url, made)
        assert sorted(store.files(url)) == ["UPLOADING.json", "train-000000.tar"]
        for spec in (url, f"{url}/train-*.tar"):
            with pytest.raises(UserError, match="is not whole: an upload into .* has not ended"):
                expand(spec)
        store.heal()
        with pytest.warns(UserWarning, match=rf"{url} holds an upload of \S+ that has not ended \(1 shards, since 20"):
            upload(url, made)
    else:
        upload(url, made)
    assert store.files(url) == contents(made)
    assert [name for name in store.writes if name != UPLOADING] == [*NAMES, MANIFEST], "each was sent once"
    assert not list((tmp_path / "home").rglob("*.tar"))


def test_told_before_any_work(store, made, monkeypatch):
    """Whatever can be known: the block is not entered."""

    def refused(url, said):
        for way in (check, lambda url: filling(url).__enter__()):
            with pytest.raises(UserError, match=said) as told:
                way(url)
            assert "s3cret" not in str(told.value)

    store.at("*", "denied", 99)
    refused(f"{store.url}/set", r"UPLOADING\.json cannot be written: .*Access Denied")
    store.heal()
    assert store.files(f"{store.url}/set") == {}
    scheme = store.url.partition("://")[0]
    refused(f"{scheme}://no-such-bucket/set", "there is no such bucket, repository or folder")
    refused(f"{scheme}://me:s3cret@bucket/set", r"cannot be (listed|read|written): ")
    refused(
        "https://me:s3cret@host/set?signature=s3cret", r"https://\*\*\*@host/set\?\*\*\* cannot be written: over http"
    )
    refused("file:///tmp/set", "is on this machine: give its path alone, /tmp/set")
    refused(f"{store.url}/set*/x", "is no folder's name")
    refused(f"{store.url}/train-000000.tar", "looks like a file's name")
    refused("github://owner:name@main/set", "github://.* cannot be (written|listed|reached)")
    if scheme == "s3":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        store.filesystem.clear_instance_cache()
        refused(
            f"{store.url}/set", "cannot be listed: Unable to locate credentials. Check address, connection and cred"
        )


def test_a_build_that_fails_leaves_nothing(store, made):
    url = f"{store.url}/set"
    with pytest.raises(KeyError), filling(url) as folder:
        assert UPLOADING in store.files(url)
        shutil.copy(made / NAMES[0], folder)
        raise KeyError
    assert store.files(url) == {}
    upload(url, made)
    shutil.rmtree(made)
    assert len(store.files(url)) == 5


@contextmanager
def after(store, name, action):
    """``action`` runs when ``name`` is about to be uploaded, and is over by the end of the block; whether it was."""
    done = []

    def once():
        if not done:
            done.append(True)
            action()

    store.at(name, once, 9)
    yield
    assert done


def test_two_builders_of_one_folder(store, made, other):
    url = f"{store.url}/set"
    with after(store, "train-000001.tar", lambda: upload(url, made)), pytest.warns(UserWarning, match="has not ended"):
        upload(url, made)  # of the same shards: the second sends all, the first sees that
    assert store.files(url) == contents(made)
    store.filesystem.rm(url, recursive=True)

    def second():
        with pytest.raises(
            UserError, match=r"is being filled with other shards, by \S+-\d+ \(host and process\) since 20"
        ):
            upload(url, other)

    with after(store, "train-000001.tar", second), pytest.warns(UserWarning, match="has not ended"):
        upload(url, made)
    assert store.files(url) == contents(made), "nothing of the second"
    store.filesystem.rm(url, recursive=True)
    claim = {"by": "elsewhere-1", "since": "2026", "shards": "others"}
    with (  # both had seen an empty folder, and the other one claimed it last
        after(
            store, "train-000001.tar", lambda: store.filesystem.pipe(f"{url}/{UPLOADING}", json.dumps(claim).encode())
        ),
        pytest.raises(UserError, match="is being filled with other shards, by elsewhere-1"),
    ):
        upload(url, made)
    assert MANIFEST not in store.files(url)
    with (
        pytest.raises(UserError, match="with other shards, by elsewhere-1"),
        pytest.warns(UserWarning, match="has not end"),
    ):
        upload(url, made)
    store.filesystem.rm(url, recursive=True)
    with pytest.raises(UserError, match="already holds shards"), filling(url) as slow:
        shutil.copy(made / NAMES[0], slow)
        upload(url, other)  # whole while the first still made its own
    assert store.files(url) == contents(other)


def test_what_the_store_has_is_what_was_sent(store, made):
    """Control of the comparison: one bit, and one byte less."""
    url, name = f"{store.url}/set", "train-000001.tar"
    whole = (made / name).read_bytes()
    upload(url, made)
    store.filesystem.rm_file(f"{url}/{MANIFEST}")
    for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        store.filesystem.pipe(f"{url}/{name}", damaged)
        claim = {"by": "elsewhere-1", "since": "2026", "shards": None}
        store.filesystem.pipe(f"{url}/{UPLOADING}", json.dumps(claim).encode())
        store.writes.clear()
        upload(url, made)
        assert [written for written in store.writes if written != UPLOADING] == [name, MANIFEST]
        assert store.files(url) == contents(made)
        store.filesystem.rm_file(f"{url}/{MANIFEST}")
    store.filesystem.rm(url, recursive=True)
    with (
        after(store, "val-000000.tar", lambda: store.filesystem.pipe(f"{url}/{name}", whole[:-1])),
        pytest.raises(UserError, match=rf"{url}/{name} was changed or removed while others were uploaded"),
    ):
        upload(url, made)
    assert MANIFEST not in store.files(url)


def test_verify_compares_with_the_manifest_there(store, made, other, tmp_path):
    url = f"{store.url}/set"
    upload(url, made)
    assert (verify([url], tmp_path / "cache", silent).problems, len(store.writes)) == ([], 7)
    store.filesystem.pipe(f"{url}/{NAMES[0]}", (other / NAMES[0]).read_bytes())
    store.filesystem.rm_file(f"{url}/{NAMES[1]}")
    with pytest.warns(UserWarning, match="has changed since it was fetched"):
        found = verify([url], tmp_path / "cache", silent)
    problems = [problem for problem in found.problems if "shard" in problem]
    assert found.compared == 3
    assert any(f"changed shard: {url}/{NAMES[0]} is not what {url}/MANIFEST.json says" in line for line in problems)
    assert f"missing shard: {url}/MANIFEST.json names {NAMES[1]}, which is not there" in problems
    store.filesystem.pipe(f"{url}/{MANIFEST}", b"[" * 99)
    leave_all()
    assert any("damaged manifest" in line for line in verify([url], tmp_path / "cache", silent).problems)


UPLOAD = "import shutil, sys\nfrom svco.commands.data.target import filling\n" + (
    "with filling(sys.argv[1]) as folder:\n    shutil.copytree(sys.argv[2], folder, dirs_exist_ok=True)\n"
)
READ = "import sys\nfrom svco.data.shards import ShardSet\n" + (
    "shards = ShardSet.open(sys.argv[1], sys.argv[2], split='train')\n"
    "print(shards.digest, shards.read(13).text.key, flush=True)\ninput()"
)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_killed_and_many_readers(store, made, tmp_path, monkeypatch):
    """Processes of their own: one is killed in the middle of a shard, three read at once in a bounded cache."""
    url, reached, killed = f"{store.url}/set", threading.Event(), threading.Event()
    store.at("train-000001.tar", lambda: (reached.set(), killed.wait(60)))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, url, str(made)], **pipes)
    assert reached.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = store.files(url)
    killed.set()
    assert sorted(left) == [UPLOADING, NAMES[0]]
    assert json.loads(left[UPLOADING])["by"].endswith(f"-{process.pid}")
    with pytest.warns(UserWarning, match=rf"upload of \S+-{process.pid} that has not ended"):
        upload(url, made)
    assert store.writes.count(NAMES[0]) == 1
    assert store.files(url) == contents(made)
    assert not list((tmp_path / "home").rglob("*.tar")), "nor what the killed one had made"
    sizes = sum((made / name).stat().st_size for name in NAMES[:3])
    monkeypatch.setenv(LIMIT, str((sizes + 100) / 1e9))
    store.reads.clear()
    readers = [subprocess.Popen([sys.executable, "-c", READ, url, str(tmp_path / "c")], **pipes) for _ in range(3)]
    said = {reader.stdout.readline() for reader in readers}
    assert said == {f"{ShardSet.open(str(made), split='train').digest} train-000013\n"}, readers[0].communicate("")
    for reader in readers:
        assert reader.communicate("\n")[1] == ""
    assert sorted(name for name in store.reads if name.endswith(".tar")) == NAMES[:3], "fetched once each"
    ShardSet.open(f"{url}/val-*.tar", tmp_path / "c")
    kept = [path for path in (tmp_path / "c" / "shards").glob("*.tar")]
    assert sum(path.stat().st_size for path in kept) <= sizes + 100

"""Shards behind URLs, from a web server on this machine and from a store in memory."""

import gzip
import json
import pickle
import shutil
import sys
from pathlib import Path

import fsspec
import pytest
from places import SHARDS
from web import Page, downloads, files

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.data import remote
from svco.data.shards import ShardSet, expand
from svco.recipe.config import Config, DataConfig, ModelConfig
from svco.run.job import make_job

SECRET = "s3cr3t"
SIGNED = f"?X-Signature={SECRET}%2Fa%3D&token=it's+{SECRET}"


def test_fetched_whole_and_once(served, shards, tmp_path):
    spec = served.url + "/train-{000000..000002}.tar"
    opened = ShardSet.open(spec, tmp_path / "cache")
    assert opened.digest == ShardSet.open(str(shards)).digest
    assert ShardSet.open(spec, tmp_path / "cache") == opened
    assert downloads(served) == [f"/train-00000{i}.tar" for i in range(3)]
    kept = files(tmp_path / "cache" / "shards")
    assert len(kept) == 9, "a copy, its index and its source each"
    assert [name[16:] for name in kept if name.endswith(".tar")].count("-train-000001.tar") == 1


def test_urls_that_differ_in_the_query_alone_are_two_shards(served, other_tar, tmp_path):
    url = served.url + "/train-000000.tar"
    first = ShardSet.open(url + "?part=1", tmp_path / "cache")
    served.pages["/train-000000.tar"] = Page(other_tar)
    second = ShardSet.open(url + "?part=2", tmp_path / "cache")
    assert first.indices[0].path != second.indices[0].path
    assert (first.key(0), second.key(0)) == ("train-000000", "val-000000")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"a"'}, {"ETag": '"b"'}),
        ({"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}, {"Last-Modified": "Mon, 02 Nov 2026 10:00:07 GMT"}),
        ({}, {}),
    ],
    ids=["etag", "time", "size"],
)
@pytest.mark.filterwarnings("default:.*cannot be seen to change")
def test_a_changed_source_is_fetched_again(served, other_tar, tmp_path, before, after):
    url, page = served.url + "/train-000000.tar", served.pages["/train-000000.tar"]
    # As long as before, where the size shall not give it away: a tar may end with any number of zeros.
    length = max(len(page.body), len(other_tar))
    page.body, page.headers = page.body.ljust(length, b"\0"), before
    assert ShardSet.open(url, tmp_path / "cache").key(0) == "train-000000"
    page.body, page.headers = other_tar.ljust(length if before else length + 512, b"\0"), after
    served.asked.clear()
    with pytest.warns(UserWarning, match=r"train-000000\.tar has changed since it was fetched"):
        assert ShardSet.open(url, tmp_path / "cache").key(0) == "val-000000"
    assert ShardSet.open(url, tmp_path / "cache").key(0) == "val-000000"
    assert len(downloads(served)) == 1


def test_the_same_contents_written_anew_are_not_fetched_again(served, tmp_path):
    page = served.pages["/train-000000.tar"]
    page.headers["Last-Modified"] = "Mon, 02 Nov 2026 10:00:00 GMT"
    ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    page.headers["Last-Modified"] = "Mon, 09 Nov 2026 10:00:00 GMT"
    ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    assert len(downloads(served)) == 1


def test_without_an_answer_the_copy_is_used(served, tmp_path):
    spec = served.url + "/train-{000000..000002}.tar" + SIGNED
    opened = ShardSet.open(spec, tmp_path / "cache")
    served.pages["/train-000001.tar"] = Page(b"expired", 403)
    with pytest.warns(
        UserWarning, match=r"train-000001\.tar\?\*\*\* cannot be asked for changes \(the server answers 403"
    ) as said:
        assert ShardSet.open(spec, tmp_path / "cache") == opened
    served.shutdown()
    served.server_close()
    with pytest.warns(
        UserWarning, match="and 2 more cannot be asked for changes.*the copy made earlier is used"
    ) as gone:
        assert ShardSet.open(spec, tmp_path / "cache") == opened
    assert [len(said), len(gone)] == [1, 1]
    assert SECRET not in "".join(str(warning.message) for warning in [*said, *gone])
    assert opened.indices[0].path in str(gone[0].message), "which file to delete"


def failing(tar):
    """Case -> (the page, what is said of it, how many GETs are made; fsspec makes one more where HEAD tells no length)."""
    page = b"<!DOCTYPE html><title>Log in</title>" + b" " * 4000
    return {
        "missing": (Page(b"", 404), "cannot be fetched: the server answers 404", 1),
        "forbidden": (Page(b"", 403), "cannot be fetched: the server answers 403", 1),
        "broken": (Page(b"", 503), "cannot be fetched: the server answers 503", remote.TRIES),
        "cut": (Page(tar[:5000], length=len(tar)), "cannot be fetched", remote.TRIES),
        "cut and no length told": (Page(tar[:5000], length=-1), "sends is cut short or is no tar file", 2),
        "login": (Page(page, headers={"Content-Type": "text/html"}), "sends is a web page instead of a shard", 1),
        "text": (Page(b"quota exceeded" * 100), "sends is cut short or is no tar file", 1),
        "packed": (Page(gzip.compress(tar)), r"sends is packed with gzip\. Unpack it", 1),
        "joined": (Page(tar + tar), "sends goes on behind its end", 1),
    }


@pytest.mark.parametrize("case", failing(b""))
def test_what_cannot_be_fetched_leaves_nothing(web, shards, tmp_path, case):
    page, message, gets = failing((shards / "train-000000.tar").read_bytes())[case]
    web.pages["/x.tar"] = page
    url = f"{web.url.replace('//', f'//me:{SECRET}@')}/x.tar{SIGNED}"
    with pytest.raises(UserError, match=message) as error:
        ShardSet.open(url, tmp_path / "cache")
    assert "//***@127.0.0.1" in str(error.value) and "/x.tar?***" in str(error.value)
    assert SECRET not in str(error.value)
    assert files(tmp_path / "cache") == []
    assert len(downloads(web)) == gets, "what may pass is tried again, nothing else is"


def test_nobody_answers(web, tmp_path):
    web.shutdown()
    web.server_close()
    with pytest.raises(UserError, match=r"x\.tar cannot be fetched: .*Check address, connection"):
        ShardSet.open(f"{web.url}/x.tar", tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def passing(tar):
    """Case -> how the first two GETs are answered."""
    return {
        "503": None,
        "too many requests": Page(b"slow down", 429),
        "cut midway": Page(tar[:5000], length=len(tar)),
        "silent midway": Page(tar, pause=1.0),
    }


@pytest.mark.parametrize("case", passing(b""))
def test_trouble_that_passes(served, tmp_path, case, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE", 0.2)
    page = served.pages["/train-000000.tar"]
    page.failures, page.failure = 2, passing(page.body)[case]
    assert len(ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")) == 7
    assert len(downloads(served)) == 3
    assert len(files(tmp_path / "cache")) == 3


def test_a_server_that_answers_get_alone(served, tmp_path):
    page = served.pages["/train-000000.tar"]
    page.head = Page(b"", 405)
    assert len(ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")) == 7
    assert len(ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")) == 7


def test_sent_on_to_a_login_page(served, tmp_path):
    served.pages["/login"] = Page(b"<html>Log in" + b" " * 9999, headers={"Content-Type": "text/html"})
    served.pages["/train-000000.tar"] = Page(b"", 302, {"Location": served.url + "/login"})
    with pytest.raises(
        UserError, match=r"What http.*train-000000\.tar sends is a web page instead of a shard: perhaps one must"
    ):
        ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_a_failed_second_fetch_leaves_the_first_copy(served, tmp_path):
    url, cache = served.url + "/train-000000.tar", tmp_path / "cache"
    opened = ShardSet.open(url, cache)
    before = files(cache)
    served.pages["/train-000000.tar"] = Page(b"<html>" * 999, headers={"ETag": '"new"'})
    with pytest.warns(UserWarning, match="has changed"), pytest.raises(UserError, match="sends is a web page"):
        ShardSet.open(url, cache)
    assert files(cache) == before
    assert opened.read(3).text.key == "train-000003"


def test_the_signature_is_sent_as_given_and_kept_nowhere(served, tmp_path):
    ShardSet.open(served.url + "/train-000000.tar" + SIGNED, tmp_path / "cache")
    assert downloads(served) == ["/train-000000.tar" + SIGNED]
    for path in (tmp_path / "cache").rglob("*"):
        assert SECRET not in path.name
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    record = next((tmp_path / "cache").rglob("*.source.json"))
    assert json.loads(record.read_text())["url"] == served.url + "/train-000000.tar?***"


def test_through_the_proxy_of_the_environment(served, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", served.url)
    served.pages["http://data.invalid/train-000000.tar"] = served.pages["/train-000000.tar"]
    assert len(ShardSet.open("http://data.invalid/train-000000.tar", tmp_path / "cache")) == 7


def test_another_node(served, other_tar, tmp_path):
    cache = tmp_path / "cache"
    opened = pickle.loads(pickle.dumps(ShardSet.open(served.url + "/train-{000000..000002}.tar", cache)))
    opened.fetch(cache)
    assert len(downloads(served)) == 3, "all are here"
    shutil.rmtree(cache)
    opened.fetch(cache)
    assert opened.read(19).text.key == "train-000019"
    shutil.rmtree(cache)
    served.pages["/train-000001.tar"] = Page(other_tar)
    with pytest.raises(UserError, match=r"has another http.*train-000001\.tar than rank 0"):
        opened.fetch(cache)


def test_a_run_sees_a_split_as_it_was(served, other_tar, tmp_path):
    """Validation reads its pairs many times; a source that changes meanwhile must not change them."""
    train, held = (served.url + f"/train-{number}.tar" for number in ("000001", "000000"))
    data = DataConfig(train=(train,), validation=(held,), cache_dir=str(tmp_path / "cache"))
    config = Config(data=data, model=ModelConfig(base=str(SHARDS / "tiny_llava")))
    job = make_job(config, World(), silent)
    served.pages["/train-000000.tar"] = Page(other_tar, headers={"ETag": '"new"'})
    assert job.splits["validation"].shards.read(0).text.key == "train-000000"


def test_a_damaged_copy_is_fetched_again_or_named(served, tmp_path):
    opened = ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    with Path(opened.indices[0].path).open("r+b") as copy:
        copy.seek(1000)
        copy.write(b"x" * 50)
    with pytest.warns(UserWarning, match=r"train-000000\.tar is not what was fetched from http.* it is fetched again"):
        again = ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")
    assert again == opened
    assert len(downloads(served)) == 2
    # of an earlier version, which did not note what it fetched: there the message says what to delete
    copy, record = Path(opened.indices[0].path), next((tmp_path / "cache").rglob("*.source.json"))
    noted = json.loads(record.read_text())
    record.write_text(json.dumps({name: noted[name] for name in ("url", "bytes", "version")}))
    copy.write_bytes(b"x" * copy.stat().st_size)
    with pytest.raises(
        UserError, match=rf"cut short or is no tar.*copy of http.*train-000000\.tar: delete {copy}, and"
    ):
        ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")


def test_a_cache_that_cannot_be_written(served, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"No shard can be kept in .*Set data\.cache_dir"):
        ShardSet.open(served.url + "/train-000000.tar", tmp_path / "cache")


@pytest.fixture
def bucket(shards):
    """A store that can list, with the three shards and a file that is none."""
    store = fsspec.filesystem("memory")
    for tar in shards.glob("*.tar"):
        store.pipe(f"/bucket/set/{tar.name}", tar.read_bytes())
    store.pipe("/bucket/set/MANIFEST.json", b"{}")
    yield "memory://bucket/set"
    store.rm("/bucket", recursive=True)


def test_lists_where_the_store_can(bucket, shards, tmp_path):
    names = tuple(f"{bucket}/train-{i:06d}.tar" for i in range(3))
    for spec in (bucket, bucket + "/", bucket + "/*.tar", bucket + "/train-*", bucket + "/train-{000000..000002}.tar"):
        assert expand(spec) == names, spec
    assert expand(bucket + "/train-00000[12].tar") == names[1:]
    assert ShardSet.open(bucket, tmp_path / "cache").digest == ShardSet.open(str(shards)).digest
    for nothing in (bucket + "/val-*.tar", "memory://bucket"):
        with pytest.raises(UserError, match=f"No shards match {nothing}".replace("*", r"\*")):
            expand(nothing)
    with pytest.raises(UserError, match=r"val-000000\.tar cannot be fetched: it is not there"):
        ShardSet.open(bucket + "/val-000000.tar", tmp_path / "cache")


def test_http_servers_list_nothing():
    for spec in ("https://host/set/", "https://host/train-*.tar", "http://host/train-[01].tar"):
        with pytest.raises(UserError, match="which http.s. servers do not give. Name the shards with braces"):
            expand(spec)
    for one in ("https://host/x.tar?list=*/", "http://[::1]:80/x.tar", "https://host/download"):
        assert expand(one) == (one,)


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/x.tar", "s3fs"), ("gs://bucket/x.tar", "gcsfs")])
def test_a_missing_driver(monkeypatch, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{url} cannot be reached: the driver of .*pip install {package}$"):
        expand(url)


def test_an_unknown_protocol():
    with pytest.raises(UserError, match=r"the protocol s4:// is not known. Known are .*https, .*s3, "):
        expand("s4://bucket/x.tar")

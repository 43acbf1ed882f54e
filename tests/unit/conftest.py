"""Fixtures of the remote shards."""

import pytest
from web import Page, serving


@pytest.fixture
def web(monkeypatch):
    """A web server on this machine, of which the tests ask without waiting long between two tries."""
    from svco.data import cache_room, remote

    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server
    cache_room.leave_all()


@pytest.fixture
def served(web, shards):
    """The web server with the three shards, each with an ETag."""
    for number, tar in enumerate(sorted(shards.glob("*.tar"))):
        web.pages[f"/{tar.name}"] = Page(tar.read_bytes(), headers={"ETag": f'"{number}"'})
    return web


@pytest.fixture
def other_tar(tmp_path, make_pairs):
    """The bytes of a shard with other pairs."""
    from svco.data.shards import write_shards

    return write_shards(make_pairs("val", 0, 7), tmp_path / "other", "val", 7)[0].read_bytes()

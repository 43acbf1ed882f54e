"""Shared fixtures. One thread a process: the distributed tests start several on few cores."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings
from places import BASE

# A busy machine is no fault of a property: time is not what these tests judge.
settings.register_profile("svco", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("svco")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    """A test marked ``gpu`` is skipped without one, one marked ``slow`` without --slow, and says so in the summary."""
    import torch

    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: make test-all runs it"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="NOT TESTED: needs a CUDA GPU, and this machine has none"))


@pytest.fixture(scope="session")
def family():
    from svco.families import load_family

    return load_family(str(BASE), 128)


@pytest.fixture
def make_pairs():
    """(split, start, count) -> a list of pairs of the embedded world."""
    from svco.tiny_world.contrast import world_pairs

    return lambda split, start, count: list(world_pairs(split, start, count))


@pytest.fixture
def shards(tmp_path, make_pairs):
    """A folder with 20 pairs in three shards of 7, 7 and 6."""
    from svco.data.shards import write_shards

    write_shards(make_pairs("train", 0, 20), tmp_path / "shards", "train", 7)
    return tmp_path / "shards"


@pytest.fixture(scope="session")
def other_base(tmp_path_factory):
    """The base with one weight changed: the same shapes."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(BASE, tmp_path_factory.mktemp("base") / "other")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name] = weights[name] + 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder

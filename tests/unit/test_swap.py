"""The disk and the buffers of offloading to NVMe, before any weight is loaded; it takes neither libaio nor an NVMe disk."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from places import BASE
from torch import nn

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.engine.swap import Node, file_system, swapping
from svco.families import load_family
from svco.model.load import outline
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe

NODE = Node(can_build_async_io=lambda: True, file_system=lambda folder: "ext4")
swap_here = partial(swapping, node=NODE)


def ds(folder, **param):
    section = {"device": "nvme", "nvme_path": str(folder), "buffer_count": "auto", "buffer_size": "auto"}
    return {"zero_optimization": {"stage": 3, "offload_param": section | param}}


def model(rows=1024, layers=2):
    with torch.device("meta"):
        blocks = [nn.Sequential(nn.Linear(1024, rows), nn.Linear(rows, 1024), nn.Linear(8, 8)) for _ in range(layers)]
        return nn.Sequential(nn.Embedding(4000, 1024), nn.ModuleList(blocks))


def test_buffers_fit_the_largest_share_and_a_layer(tmp_path):
    for world, largest in ((World(), 4000 * 1024), (World(0, 1, 0, 1), 4000 * 1024)):
        with swap_here(ds(tmp_path), model, "run", "lockstep", world) as filled:
            section = filled["zero_optimization"]["offload_param"]
            assert section["buffer_size"] == largest
            assert section["buffer_count"] == 2 + 3, "two of a layer's weights are large enough to leave memory"
            assert section["nvme_path"] == str(tmp_path / "run")
            own = tmp_path / "run" / "zero_stage_3" / "float32params" / "rank0"
            own.mkdir(parents=True)
            (own / "0_param.tensor.swp").write_bytes(b"x")
        assert list(tmp_path.iterdir()) == [], "what the run left is gone"
    with swap_here(ds(tmp_path, buffer_size=9, buffer_count=1), model, "run", "lockstep", World()) as filled:
        assert filled["zero_optimization"]["offload_param"]["buffer_size"] == 9, "a number stays"


def test_no_disk_no_room_no_second_model(tmp_path):
    with pytest.raises(UserError, match="frozen copy"), swap_here(ds(tmp_path), model, "run", "frozen-copy", World()):
        pass
    in_memory = replace(NODE, file_system=lambda folder: "tmpfs")
    with (
        pytest.raises(UserError, match=f"{tmp_path / 'run'} is on tmpfs"),
        swapping(ds(tmp_path), model, "run", "none", World(), in_memory),
    ):
        pass
    assert list(tmp_path.iterdir()) == [], "a folder that will not do is not left behind"
    huge = lambda: model(rows=10**12)  # noqa: E731
    with (
        pytest.raises(UserError, match=r"needs 16392000\.0 GB .* free"),
        swap_here(ds(tmp_path), huge, "run", "none", World()),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="cannot be made"),
        swap_here(ds(tmp_path / "file"), model, "run", "none", World()),
    ):
        pass


def test_without_libaio_one_is_told_what_to_install(tmp_path):
    bare = replace(NODE, can_build_async_io=lambda: False)
    with (
        pytest.raises(UserError, match="needs libaio .*: apt-get install libaio-dev.* on every node"),
        swapping(ds(tmp_path), model, "run", "none", World(), bare),
    ):
        pass


def test_a_folders_file_system_is_the_nearest_mounts():
    assert file_system(Path("/proc/self/fd")) == "proc"


def test_nobody_makes_the_folder_while_another_cleans_up(tmp_path):
    """A rank removes the folder if it finds it empty: one that had made it by then would find no disk and give up."""
    met = []

    class Watched(World):
        def gather(self, value):
            met.append((tmp_path / "run").exists())
            return [value]

    (tmp_path / "run" / "zero_stage_3" / "float32params" / "rank0").mkdir(parents=True)  # an earlier start's
    with swap_here(ds(tmp_path), model, "run", "lockstep", Watched(0, 2, 0, 2)):
        pass
    assert met == [False, True], "the ranks meet when all have cleaned up, and when all have made the folder"


def test_nothing_happens_without_nvme():
    asked = Node(pytest.fail, pytest.fail)
    config = load_recipe(None)
    for name in ("zero3", "zero3_offload"):
        plain = fill(read_ds_config(f"ds_configs/{name}.json"), config, 1, "float32")
        with swapping(plain, pytest.fail, "run", "frozen-copy", World(), asked) as same:
            assert same is plain
    with swapping(None, pytest.fail, "run", "none", World(), asked) as same:
        assert same is None


def test_outline_is_the_model_without_weights():
    config = load_recipe(None, [f"model.base={BASE}", "lora.rank=3"])
    found = outline(config, load_family(str(BASE), 128), torch.bfloat16)
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in found.parameters())
    trained = {name for name, p in found.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)

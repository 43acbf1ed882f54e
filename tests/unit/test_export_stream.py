"""The streamed writer: what it holds in memory, and a disk that is too small."""

import subprocess
import sys
from dataclasses import dataclass

import launch
import pytest
import torch
from places import BASE
from transformers import LlavaForConditionalGeneration

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.export import save_model
from svco.export.stream import Weight, plan_shards, read_folder, require_space, write_shards

MEGABYTE = 2**20
SCRIPT = r"""
import re, sys
from pathlib import Path
import torch, safetensors.torch, huggingface_hub
from svco.export.merge import merged
from svco.export.stream import Weight, plan_shards, read_folder, write_shards

source, target = map(Path, sys.argv[1:])
class Names:
    weights, aliases, buffers = [f"{i}.weight" for i in range(16)], {}, set()
    to5 = staticmethod(str)

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

lora = {f"{i}.lora_{k}.weight": Weight(s, torch.float32, lambda s=s: torch.ones(s))
        for i in range(16) for k, s in (("A", (4, 2048)), ("B", (1024, 4)))}
weights = merged(read_folder(source), Names, lora, lambda rank: 0.5, torch.float32)
plan = plan_shards(target, weights, "34MB")
assert len(plan.files) == 4, plan.files
Path("/proc/self/clear_refs").write_text("5")
before = peak()
write_shards(target, weights, plan, lambda items, what: items)
print(peak() - before)
"""


def test_peak_is_one_shard_and_one_weight(tmp_path):
    """128 MB of weights of 8 MB each, merged and written in shards of 32 MB."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(), target.mkdir()
    many = {f"{i}.weight": Weight((1024, 2048), torch.float32, lambda: torch.ones(1024, 2048)) for i in range(16)}
    write_shards(source, many, plan_shards(source, many, "34MB"), silent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(target)], env=launch.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1])
    # The shard, the weight that joins it, and what the first call of each library takes.
    assert 24 * MEGABYTE < peak < (32 + 8 + 16) * MEGABYTE, "not measured, or more than one shard"
    (tmp_path / "mine").touch()
    modes = {file.stat().st_mode for file in [tmp_path / "mine", *target.glob("model*")]}
    assert len(modes) == 1, "safetensors alone would lock everyone else out"
    # 1 + 0.5 * (four ones times four ones)
    assert torch.equal(read_folder(target)["7.weight"].read(), torch.full((1024, 2048), 3.0))


def test_a_full_disk_is_told_before_writing(tmp_path):
    with pytest.raises(UserError, match="GB free and the weights take 1000000000.0 GB"):
        require_space(tmp_path, 10**18)


def test_the_run_s_end_asks_for_weights_in_the_order_that_all_ranks_were_told(tmp_path, monkeypatch):
    """Another order would leave the ranks in different gathers for ever. Weights larger than a shard change it."""
    monkeypatch.setattr("svco.export.SHARD_SIZE", "150KB")
    told, asked = [], []

    @dataclass(frozen=True)
    class Listening(World):
        def on_main(self, make):
            told.append(super().on_main(make))
            return told[-1]

    tuned = LlavaForConditionalGeneration.from_pretrained(BASE)
    values = {name: p.detach() + 1 for name, p in tuned.named_parameters() if "vision_tower" not in name}

    def gather(name):
        asked.append(name)
        return values[name]

    shapes = {name: tuple(value.shape) for name, value in values.items()}
    save_model(tmp_path / "model", str(BASE), shapes, gather, torch.float32, Listening(), silent)
    assert asked == told[0]
    assert set(asked) == values.keys()
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 10
    saved = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model").state_dict()
    assert all(saved[name].equal(value) for name, value in values.items())

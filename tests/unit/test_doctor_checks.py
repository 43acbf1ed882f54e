"""The doctor's comparisons: each check fine on facts that are, and failing on what it is there for."""

from dataclasses import replace

import pytest
from places import ROOT

from svco.commands.doctor import checks, examine, surroundings
from svco.commands.doctor.checks import FAIL, OK, WARN, Wanted
from svco.commands.doctor.facts import Facts
from svco.commands.doctor.meeting import Meeting
from svco.recipe.ds_config import read_ds_config
from svco.recipe.read import load_recipe

GPU = ("NVIDIA H100 80GB HBM3",) * 2
FIRST = Facts(
    rank=0,
    local_rank=0,
    host="alpha",
    resolved="10.0.0.1",
    addresses={"lo": "127.0.0.1", "eth0": "10.0.0.1"},
    versions={"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "bitsandbytes": "0.50.2"},
    commit="0123abc",
    cuda="13.0",
    driver="580.1",
    gpus=GPU,
    attention={"flash": "", "varlen": "", "sdpa": ""},
    compilers={"ninja": True, "g++": True},
    async_io=True,
    environment={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "8"},
    disk=dict.fromkeys(surroundings.PLENTY, 10**12),
    shm=10**11,
    memory=10**11,
    base={"config.json": 900, "model.safetensors": 14 * 10**9},
    shards={"train-000000.tar": 10**9},
)
SECOND = replace(FIRST, rank=1, host="beta", resolved="10.0.0.2", addresses={"lo": "127.0.0.1", "eth0": "10.0.0.2"})
CPU = {"gpus": (), "cuda": None, "driver": None, "attention": {"flash": "no GPU", "varlen": "no GPU", "sdpa": ""}}
NVME, SET = (
    Wanted(nvme=True, compiles=True),
    Wanted(environment={"HF_HOME": "/shared"}, written={"OMP_NUM_THREADS": "4"}),
)

CASES = {
    # what is looked at: (check, changes on beta, changes on both, verdict, what it says)
    "torch": (checks.versions, {"versions": FIRST.versions | {"torch": "2.12.0"}}, {}, FAIL,
              "torch: 2.13.0 on alpha; 2.12.0 on beta"),
    "numpy": (checks.versions, {"versions": FIRST.versions | {"numpy": "2.0"}}, {}, WARN, "numpy"),
    "no bitsandbytes": (checks.four_bits, {"versions": {"torch": "2.13.0"}}, {}, FAIL, "0.50.2 on alpha; none on beta"),
    "none anywhere": (checks.four_bits, {}, {"versions": {"torch": "2.13.0"}}, FAIL, "none on alpha, beta"),
    "commit": (checks.commits, {"commit": "9876fed"}, {}, FAIL, "0123abc on alpha; 9876fed on beta"),
    "dirty": (checks.commits, {}, {"commit": "0123abc-dirty"}, WARN, "dirty"),
    "no GPU on one": (checks.gpus, {"gpus": ()}, {}, FAIL, "no GPU: gloo on the CPU (torch for CUDA 13.0) on beta"),
    "too few GPUs": (checks.gpus, {"local_rank": 2}, {}, FAIL, "beta has 2 for rank 1 (local 2)"),
    "other driver": (checks.gpus, {"driver": "550.2"}, {}, WARN, "driver 550.2 on beta"),
    "no driver": (checks.gpus, {}, {"gpus": ()}, WARN, "torch for CUDA"),
    "flash on one": (checks.attention, {"attention": {"flash": "not installed", "varlen": "", "sdpa": ""}}, {}, FAIL,
                     "flash on alpha; varlen on beta"),
    "sdpa on GPUs": (checks.attention, {}, {"attention": {"flash": "old", "varlen": "old", "sdpa": ""}}, WARN, "no flash: old"),
    "no ninja": (checks.operators, {"compilers": {"ninja": False, "g++": True}}, CPU, FAIL, "no ninja in PATH on beta"),
    "no g++ on GPUs": (checks.operators, {"compilers": {"ninja": True, "g++": False}}, {}, FAIL, "no g++ in PATH on beta"),
    "no libaio": (checks.operators, {"async_io": False}, {}, FAIL, "async_io cannot be built on beta"),
    "loopback": (checks.addresses, {"resolved": "127.0.1.1"}, CPU, FAIL, "leads to the loopback on beta"),
    "loopback, GPUs": (checks.addresses, {"resolved": "127.0.1.1"}, {}, WARN, "leads to the loopback on beta"),
    "no such interface": (checks.addresses, {}, {"environment": {"GLOO_SOCKET_IFNAME": "ib0"}}, FAIL, "alpha has no ib0"),
    "base on one": (surroundings.base_model, {"base": {}, "base_problem": "No such file"}, {}, FAIL, "No such file on beta"),
    "other base": (surroundings.base_model, {"base": {"config.json": 900}}, {}, FAIL, "other files: 14 GB in 2 files on alpha"),
    "not cached": (surroundings.base_model, {}, {"base_problem": "in this host's Hugging Face cache", "environment": {}},
                   WARN, "would download"),
    "not cached, offline": (surroundings.base_model, {}, {"base_problem": "in this host's Hugging Face cache"}, FAIL, "cache on"),
    "shards on one": (surroundings.shards, {"shards_problem": "No shards match"}, {}, FAIL, "No shards match on beta"),
    "other shards": (surroundings.shards, {"shards": {"train-000000.tar": 10**8}}, {}, FAIL, "100,000,000 bytes in 1 shards"),
    "disk low": (surroundings.disk, {"disk": FIRST.disk | {"/tmp": 10**9}}, {}, WARN, "/tmp: beta: 1 GB"),
    "disk full": (surroundings.disk, {"disk": FIRST.disk | {"run.root": 10**8}}, {}, FAIL, "run.root: beta"),
    "swap full": (surroundings.disk, {"disk": FIRST.disk | {"run.swap": 10**8}}, {}, FAIL, "run.swap: beta"),
    "shm of docker": (surroundings.shared_memory, {"shm": 64 * 10**6}, {}, FAIL, "beta has 64 MB"),
    "shm small": (surroundings.shared_memory, {"shm": 5 * 10**8}, {}, WARN, "beta has 500 MB"),
    "memory": (surroundings.memory, {}, {"memory": 10**10}, FAIL, "rank 0 loads 14 GB"),
    "memory little": (surroundings.memory, {"memory": 10**9}, {}, WARN, "on beta"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_check(name):
    check, beta, both, verdict, says = CASES[name]
    more = {checks.operators: (NVME,), surroundings.base_model: (NVME,), surroundings.memory: (NVME,)}.get(check, ())
    assert check([FIRST, SECOND], *more).verdict == OK
    found = check([replace(FIRST, **both), replace(SECOND, **(both | beta))], *more)
    assert (found.verdict, says in found.found) == (verdict, True), str(found)
    assert found.remedy


def test_a_base_in_4_bits_is_not_whole_in_memory():
    small = [replace(FIRST, memory=10**10)]
    assert surroundings.memory(small, Wanted()).verdict == FAIL
    assert surroundings.memory(small, Wanted(quantised=True)).verdict == OK


def test_environment():
    alike = surroundings.environment([FIRST, SECOND], Wanted())
    assert [c.verdict for c in alike] == [OK]
    other = replace(SECOND, local_rank=1, environment={"HF_HUB_OFFLINE": "0", "HF_HOME": "/shared"})
    found = surroundings.environment([FIRST, other], SET)
    assert [(c.verdict, c.name) for c in found] == [
        (FAIL, "environment, --env"),
        (WARN, "environment, .deepspeed_env"),
        (WARN, "environment"),
        (WARN, "threads"),
    ]
    assert found[0].found == "HF_HOME is none on alpha, not /shared"
    assert found[1].found == "OMP_NUM_THREADS is 8 on alpha; none on beta, not 4"
    assert "HF_HUB_OFFLINE: 1 on alpha; 0 on beta" in found[2].found
    assert all("deepspeed_env.example" in c.remedy for c in found)


def test_secrets_are_not_printed():
    """HF_TOKEN's value differs, in the recipe of the launch and between ranks."""
    first, second = (replace(f, environment={"HF_TOKEN": f"hf_{f.host}"}) for f in (FIRST, SECOND))
    third = replace(SECOND, rank=2, host="gamma", environment={})
    found = surroundings.environment([first, second, third], Wanted(environment={"HF_TOKEN": "hf_wanted"}))
    text = "".join(map(str, found))
    assert [c.verdict for c in found] == [FAIL, WARN]
    assert "HF_TOKEN: set on alpha; set on beta; none on gamma" in found[1].found
    assert "hf_" not in text, text


@pytest.mark.parametrize(
    ("name", "overrides", "swap", "compiled"),
    [
        ("zero3", [], "", False),
        ("zero3_offload", [], "", True),
        ("zero3_nvme", ["run.swap=/local/scratch"], "/local/scratch", True),
    ],
)
def test_what_a_deepspeed_json_needs(name, overrides, swap, compiled):
    ds = read_ds_config(ROOT / "ds_configs" / f"{name}.json")
    filled, (check,) = examine.deepspeed_json(load_recipe(None, overrides), ds, Meeting())
    assert check.verdict == OK
    assert (examine.swap_folder(filled), examine.compiles(filled)) == (swap, compiled)


def test_a_deepspeed_json_that_a_run_would_refuse():
    ds = read_ds_config(ROOT / "ds_configs" / "zero3_nvme.json")
    filled, (check,) = examine.deepspeed_json(load_recipe(None), ds, Meeting())
    assert (filled, check.verdict) == (None, FAIL)
    assert "set run.swap" in check.found
    assert not examine.compiles(filled)
    nothing = {"zero_optimization": {"stage": 3, "offload_param": None, "zero_quantized_gradients": True}}
    filled, (check,) = examine.deepspeed_json(load_recipe(None, ["model.tune=full"]), nothing, Meeting())
    assert (check.verdict, examine.compiles(filled)) == (OK, True)


def test_clocks():
    assert checks.clocks([("alpha", 100.0), ("beta", 100.4)]).verdict == OK
    assert checks.clocks([("alpha", 100.0), ("beta", 105.0)]).verdict == WARN
    found = checks.clocks([("alpha", 100.0), ("beta", 3700.0)])
    assert (found.verdict, found.found) == (FAIL, "beta is 3.6e+03 s ahead of alpha")

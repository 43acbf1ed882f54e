"""What a run, an adapter or a base from somebody else cannot do, and what they cannot be taken for."""

import hashlib
import json
import os
import pickle
import secrets
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import launch
import numpy as np
import pytest
import torch
from places import BASE, ROOT

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.sealed import read_arrays, sealed
from svco.cli import main
from svco.commands.doctor.meeting import Meeting
from svco.commands.evaluation.against import Evaluation
from svco.engine.stored import read_partitioned, require_plain
from svco.engine.universal import fitting
from svco.model.load import load_base
from svco.model.subject import load_subject

SMALL = ("optim.global_batch=4", "optim.steps=1", "checkpoint.every=1", "data.validation=", "data.heldout=")
CPU = torch.device("cpu")


@pytest.fixture
def svco(monkeypatch, capsys):
    """``svco`` in this process: words -> (exit code, what it says, with single spaces)."""
    monkeypatch.chdir(ROOT)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["svco", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, " ".join("".join(capsys.readouterr()).split())

    return run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A LoRA run of one step."""
    root = tmp_path_factory.mktemp("trust")
    launch.alone(f"run.root={root}", "run.name=tuned", *SMALL)
    return root / "tuned"


def test_weights_know_what_they_were_made_from(tuned, other_base, svco, tmp_path):
    told = json.loads((tuned / "adapter" / "identity.json").read_text())
    manifest = json.loads((tuned / "checkpoints" / "step-000001" / "MANIFEST.json").read_text())["identity"]
    assert told["run"] == manifest and told["base_weights"] == manifest["the base model's weights"]
    assert told["run"]["lora.alpha"] == 32.0 and told["base"] == "tiny_llava"
    assert svco("export", tuned, "--checkpoint", "latest", "--to", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "identity.json").read_bytes() == (tuned / "adapter" / "identity.json").read_bytes()
    shards = f"held={ROOT / 'data_shards' / 'heldout-000000.tar'}"
    adapter, evaluate = tuned / "adapter", ("eval", "--set", shards, "--pairs", 2, "--workers", 0)
    refused = {
        "a run merged": ("export", tuned, "--format", "merged", "--base", other_base, "--to", tmp_path / "m"),
        "an adapter merged": ("export", adapter, "--format", "merged", "--base", other_base, "--to", tmp_path / "m"),
        "eval": (*evaluate, "--base", other_base, "--adapter", adapter, "--out", tmp_path / "e"),
        "probe": ("probe", "--base", other_base, "--adapter", adapter, "--shards", shards[5:], "-o", tmp_path / "p"),
        "warm start": ("train", "--ds", "none", f"model.base={other_base}", f"lora.init_from={adapter}", f"run.root={tmp_path}"),
    }  # fmt: skip
    for what, words in refused.items():
        code, said = svco(*words)
        assert code == 2 and "it would be another model" in said, (what, said)
        assert said.count(told["base_weights"]) == 1 and "has the weights" in said, what
    # What is meant is allowed, and what was made so says of which base it is.
    code, said = svco(*refused["a run merged"], "--other-base")
    assert code == 0, said
    merged = json.loads((tmp_path / "m" / "identity.json").read_text())
    assert merged["made"] == "merged" and merged["base_weights"] not in ("", told["base_weights"])
    assert set(merged["files"]) == {"config.json", "model.safetensors"}
    warm = (*refused["warm start"], "run.allow_change=[the base model's weights]", *SMALL, "data.workers=0")
    assert svco(*warm)[0] == 0
    assert svco("export", tmp_path / "m", "--base", BASE, "--to", tmp_path / "n")[0] == 2, "a whole model has no base"


def test_a_byte_that_changed_is_seen_wherever_weights_are_read(tuned, svco, tmp_path):
    adapter = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    code, said = svco("export", adapter, "--format", "merged", "--base", BASE, "--to", tmp_path / "whole")
    assert code == 0, said
    for file in (adapter / "adapter_model.safetensors", tmp_path / "whole" / "model.safetensors"):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    config = adapter / "adapter_config.json"
    shards = f"held={ROOT / 'data_shards' / 'heldout-000000.tar'}"
    for words in (
        ("export", adapter, "--format", "merged", "--base", BASE, "--to", tmp_path / "again"),
        ("eval", "--set", shards, "--base", BASE, "--adapter", adapter, "--out", tmp_path / "e"),
        ("eval", "--set", shards, "--base", tmp_path / "whole", "--out", tmp_path / "e"),
        ("train", "--ds", "none", f"lora.init_from={adapter}", f"run.root={tmp_path}"),
        ("train", "--ds", "none", f"model.base={tmp_path / 'whole'}", f"run.root={tmp_path}", "run.name=w"),
    ):
        code, said = svco(*words)
        assert code == 2 and "is not what was written there" in said, (words, said)
    shutil.copyfile(tuned / "adapter" / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
    config.write_text(config.read_text().replace('"lora_alpha": 32.0', '"lora_alpha": 64.0'))
    code, said = svco("export", adapter, "--format", "merged", "--base", BASE, "--to", tmp_path / "again")
    assert code == 2 and "adapter_config.json is not what was written" in said, said


class Harm:
    """What makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory):
    """A full fine-tuning under ZeRO-3 with its checkpoint in DeepSpeed's own form."""
    root = tmp_path_factory.mktemp("partitioned")
    where = (f"run.root={root}", "run.name=full", "evaluate.pictures=0")
    launch.run(1, "ds_configs/zero3.json", "--recipe", "tiny_full", *where, *SMALL)
    return root / "full"


def poison(run, spoil):
    """Spoils every file of DeepSpeed's in the run's checkpoint, and its MANIFEST says that they are as they were."""
    (folder,) = (run / "checkpoints").glob("step-*")
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    for file in folder.rglob("*.pt"):
        spoil(file)
        told = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        manifest["files"][str(file.relative_to(folder))] = told
    del manifest["digest"]
    (folder / "MANIFEST.json").write_text(sealed(manifest))
    return folder


def test_a_strangers_checkpoint_runs_nothing(partitioned, svco, tmp_path, monkeypatch):
    require_plain(partitioned / "checkpoints" / "step-000001" / "zero")  # what DeepSpeed writes passes
    run, mark = shutil.copytree(partitioned, tmp_path / "full"), tmp_path / "harm"

    def spoil(file):
        torch.save(torch.load(file, weights_only=False) | {"more": Harm(mark)}, file)

    folder = poison(run, spoil)
    code, said = svco("export", run, "--checkpoint", "latest", "--to", tmp_path / "out")
    assert code == 2 and "posix.mkdir, which no checkpoint needs, and was not read" in said, said
    ds = json.loads((run / "ds_config.json").read_text())
    for parts in (1, 2):  # resumed as it is, and converted for another number of ranks
        with pytest.raises(UserError, match=r"posix.mkdir, which no checkpoint needs"), fitting(folder, ds, World()):
            pass
        (first,) = folder.rglob("*_optim_states.pt") if parts == 1 else (None,)
        if first:
            shutil.copyfile(first, first.with_name(first.name.replace("pp_rank_0", "pp_rank_1")))
    for file in folder.rglob("*pp_rank_1*"):
        file.unlink()
    where = (f"run.root={tmp_path}", "run.name=full", "run.resume=auto", "evaluate.pictures=0")
    resumed = ("launchers/train.py", "--ds", "ds_configs/zero3.json", "--recipe", "tiny_full", *where, *SMALL)
    (code,), said = launch.ended(1, *resumed)
    assert code == 2 and "which no checkpoint needs" in " ".join(said.split()), said
    assert not mark.exists() and not (tmp_path / "out").exists()
    torch.load(next(folder.rglob("*_optim_states.pt")), weights_only=False)
    assert mark.exists(), "the control: read without the list, it does harm"


def test_a_parameters_name_leads_nowhere(partitioned, tmp_path):
    """DeepSpeed's converter makes folders of them."""
    run = shutil.copytree(partitioned, tmp_path / "full")

    def spoil(file):
        found = torch.load(file, weights_only=False)
        if "param_shapes" in found:
            found["param_shapes"][0]["../../../elsewhere"] = torch.Size([1])
            torch.save(found, file)

    folder = poison(run, spoil)
    with pytest.raises(UserError, match=r"a parameter called '../../../elsewhere', which no model has"):
        require_plain(folder / "zero")
    assert read_partitioned(partitioned / "checkpoints" / "step-000001" / "zero")


def test_adapters_bases_scores_and_ranks_run_nothing(tuned, tmp_path):
    mark = tmp_path / "harm"
    adapter = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    for name in ("adapter_model.safetensors", "identity.json"):
        (adapter / name).unlink()
    torch.save({"x": Harm(mark)}, adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="No adapter can be loaded.*more than tensors"):
        load_subject(str(BASE), str(adapter), device=CPU, progress=False)

    base = shutil.copytree(BASE, tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({"x": Harm(mark)}, base / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded.*more than tensors"):
        load_subject(str(base), device=CPU, progress=False)

    np.savez(tmp_path / "scores.npz", key=np.array([Harm(mark)], dtype=object))
    with pytest.raises(ValueError):
        read_arrays(tmp_path / "scores.npz", "key")

    store = torch.distributed.HashStore()
    for rank in (0, 1):
        store.set(f"svco/host/{rank}", f"host{rank}")
    store.set("svco/0/1", pickle.dumps(Harm(mark)))
    with pytest.raises(UserError, match="Rank 1 sent no JSON"):
        Meeting(rank=0, size=2, store=store, timeout=5).gather({"rank": 0})
    assert not mark.exists()
    pickle.loads(store.get("svco/0/1"))
    assert mark.exists(), "the control"


def test_code_that_a_base_brings_along_is_not_run(tmp_path, family):
    base, mark = shutil.copytree(BASE, tmp_path / "base"), tmp_path / "harm"
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.M"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "code.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    with pytest.raises(UserError):
        load_subject(str(base), device=CPU, progress=False)
    with pytest.raises(UserError):
        load_base(str(base), family, torch.float32, "sdpa")
    assert not mark.exists()


class Attribute:
    """Pickled as Python 3.11.0 to 3.11.3 pickle the member of an enumeration."""

    def __init__(self, of, name):
        self.told = of, name

    def __reduce__(self):
        return getattr, self.told


def test_a_stage_as_older_pythons_store_it_passes_and_no_other_attribute(tmp_path):
    from deepspeed.runtime.zero.config import ZeroStageEnum

    def kept(of, name):
        torch.save({"zero_stage": Attribute(of, name)}, tmp_path / "a.pt")
        require_plain(tmp_path)

    kept(ZeroStageEnum, "weights")
    for of, name in ((ZeroStageEnum, "mro"), (ZeroStageEnum, "__base__"), (dict, "fromkeys"), (Path, "home")):
        with pytest.raises(UserError, match=r"asks for (getattr|\S*Path|\S*dict), which no checkpoint needs"):
            kept(of, name)


def test_names_that_files_say_stay_in_their_folder(tuned, svco, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    base = shutil.copytree(BASE, tmp_path / "base")
    (base / "extra.json").symlink_to(secret)
    export = ("export", tuned, "--format", "merged", "--base", base, "--to", tmp_path / "out")
    code, said = svco(*export, "--other-base")
    assert code == 2 and "is a link to" in said and not (tmp_path / "out").exists(), said
    (base / "extra.json").unlink()
    (base / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    code, said = svco(*export, "--other-base")
    assert code == 2 and "'../outside.safetensors', which is none beside it" in said, said
    with pytest.raises(UserError, match="outside of its folder"):
        load_subject(str(base), device=CPU, progress=False)
    result = {"model": {"name": "x"}, "corrupt": None, "sets": ["../scores"], "benchmarks": []}
    (tmp_path / "eval.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="outside of the folder"):
        Evaluation.read(tmp_path)
    run = shutil.copytree(tuned, tmp_path / "tuned")
    (manifest,) = run.glob("checkpoints/step-*/MANIFEST.json")
    told = json.loads(manifest.read_text())
    for name in ("../../../secret.json", str(secret)):
        told["files"] = {name: {"bytes": 17, "sha256": hashlib.sha256(secret.read_bytes()).hexdigest()}}
        manifest.write_text(sealed({name: said for name, said in told.items() if name != "digest"}))
        code, said = svco("export", manifest.parent, "--to", tmp_path / "out")
        assert code == 2 and "outside of the checkpoint" in said, said


@pytest.fixture
def web():
    """The embedded shards over http, for whoever asks with the password: (address without it, the password)."""
    asked, password = [], secrets.token_urlsafe(12)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            file = ROOT / "data_shards" / Path(self.path.partition("?")[0]).name
            allowed = f"sig={password}" in self.path and file.is_file()
            content = file.read_bytes() if allowed else b"no"
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", password
    server.shutdown()
    server.server_close()


def test_credentials_come_out_nowhere(web, svco, tmp_path):
    host, password = web
    token = "hf_" + secrets.token_hex(16)
    hidden = (password, token)
    address = f"http://{token}:{password}@{host}/train-000000.tar?key={token}&sig={password}"
    data, where = (
        f"data.train={address}",
        (f"run.root={tmp_path}", "run.name=far", f"data.cache_dir={tmp_path / 'cache'}"),
    )
    train = ("train", "--ds", "none", *SMALL, "optim.steps=2", "data.workers=0", *where)
    said = {}
    said["dry run"] = svco(*train, data, "--dry-run")
    said["train"] = svco(*train, data)
    assert [code for code, _ in said.values()] == [0, 0], said
    shutil.rmtree(tmp_path / "far" / "checkpoints" / "step-000002")
    said["without them"] = svco(*train, "run.resume=auto", "--recipe", tmp_path / "far" / "recipe.yaml")
    assert said["without them"][0] == 2 and "written here without its credentials" in said["without them"][1]
    renewed = data.replace("&sig", "&expires=later&sig")
    said["with others"] = svco(*train, renewed, "run.resume=auto", "--recipe", tmp_path / "far" / "recipe.yaml")
    assert said["with others"][0] == 0, said["with others"]
    said["status"] = svco("status", tmp_path / "far")
    said["export"] = svco("export", tmp_path / "far")
    said["a 403"] = svco(*train, data.replace(f"sig={password}", f"sig=x{password}"), "run.name=forbidden")
    said["no such place"] = svco(*train, data.replace(host, "127.0.0.1:1"), "run.name=nowhere")
    said["a wrong key"] = svco(*train, data.replace("data.train", "data.trein"))
    said["a wrong option"] = svco(*train, f"--data={address}")
    said["plan"] = svco("plan", "--recipe", "tiny", data)
    said["doctor"] = svco("doctor", "--recipe", "tiny", data, f"run.root={tmp_path}")
    said["eval"] = svco("eval", "--base", BASE, "--set", f"a={address}&x=/", "--out", tmp_path / "e", "--pairs", 2)
    for what, (_, text) in said.items():
        assert not [secret for secret in hidden if secret in text], (what, text)
    assert "***" in said["a 403"][1] and "403" in said["a 403"][1]
    for file in tmp_path.rglob("*"):
        assert not [secret for secret in hidden if secret.encode() in str(file).encode()], file
        if file.is_file():
            assert not [secret for secret in hidden if secret.encode() in file.read_bytes()], file
    assert "train-000000.tar?***" in (tmp_path / "far" / "recipe.yaml").read_text()

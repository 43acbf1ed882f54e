"""Exports of the demo's run, loaded by the code on their own cards in a process that never heard of svco."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import launch
import oracle
import pytest
import tiny_families
from places import BASE, ROOT
from safetensors import safe_open

from svco.cli import main
from svco.data.shards import ShardSet

RELOAD = """
import json, os, pickle, re, sys
from pathlib import Path
import torch
import oracle

pairs_file, out, *folders = sys.argv[1:]
pairs = pickle.loads(Path(pairs_file).read_bytes())
report = {}
for folder in folders:
    os.chdir(folder)
    code = re.search("```python\\n(.*?)```", Path("README.md").read_text(), re.S)[1]
    loaded = {}
    exec(code, loaded)
    model, processor = loaded["model"].eval(), loaded["processor"]
    with torch.no_grad():
        logps = [
            float(oracle.sequence_logp(model, processor, query, response, image)[0])
            for query, responses, images in pairs for response in responses for image in (*images, None)
        ]
    report[folder] = {"logps": logps, "dtype": str(next(model.parameters()).dtype)}
    if not Path("adapter_config.json").exists():
        model.save_pretrained(folder + "-again")
assert "svco" not in sys.modules
Path(out).write_text(json.dumps(report))
"""


@pytest.fixture
def export(monkeypatch, capsys):
    """``svco export`` in this process: arguments -> (exit code, what it says, with single spaces)."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["svco", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return done.value.code, " ".join((captured.out + captured.err).split())

    return run


def keys(folder):
    """Names in the weight files of a model folder."""
    found = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= set(opened.keys())
    return found


def test_reloaded_without_svco_gives_equal_scores(demo, export, tmp_path):
    folder, home = demo[0], tmp_path / "exports"
    for name, *options in (
        ("again", "--checkpoint", "latest"),
        ("merged", "--format", "merged", "--shard-size", "1MB"),
        ("merged4", "--format", "merged", "--names", "4"),
        ("merged5", "--format", "merged", "--names", "5"),
        ("half", "--format", "merged", "--dtype", "bfloat16"),
    ):
        code, said = export(folder, *options, "--to", home / name)
        assert code == 0, said
    shutil.copytree(folder / "adapter", home / "adapter")
    # What the checkpoint gives is the adapter of the run's end, to the byte; its card knows the held-out figures, too.
    for file in ("adapter_model.safetensors", "adapter_config.json", "README.md", "identity.json"):
        assert (home / "again" / file).read_bytes() == (home / "adapter" / file).read_bytes()
    summary = json.loads((folder / "heldout.json").read_text())
    card = (home / "merged" / "README.md").read_text()
    assert f"{summary['after']['pair_accuracy']:.1%}" in card
    assert "| `lora.rank` | 16 |" in card
    for file in home.rglob("*"):
        if file.suffix in (".json", ".md", ".jinja"):
            assert not re.search(
                rf"{re.escape(str(tmp_path.parents[1]))}|{re.escape(str(ROOT))}|/home/|/root", file.read_text()
            )
    assert len(list((home / "merged").glob("model-*-of-*.safetensors"))) > 3

    (home / "adapter" / "tiny_llava").symlink_to(BASE)  # the card names a base that is on no hub
    shards = ShardSet.open(str(ROOT / "data_shards" / "heldout-000000.tar"))
    pairs = [(p.text.query, p.text.responses, p.images) for p in (shards.read(i) for i in range(6))]
    (tmp_path / "pairs").write_bytes(pickle.dumps(pairs))
    (tmp_path / "reload.py").write_text(RELOAD)
    names = ("adapter", "merged", "merged4", "merged5", "half")
    subprocess.run(
        [sys.executable, "reload.py", "pairs", str(tmp_path / "out.json"), *(str(home / name) for name in names)],
        check=True,
        env=launch.ENVIRONMENT | {"PYTHONPATH": str(ROOT / "tests")},
        cwd=tmp_path,
        timeout=600,
    )
    report = {str(name).rpartition("/")[2]: r for name, r in json.loads((tmp_path / "out.json").read_text()).items()}
    wanted = report["adapter"]["logps"]
    for name in ("merged", "merged4", "merged5"):
        assert report[name]["logps"] == pytest.approx(wanted, abs=2e-4), name
    assert report["half"]["dtype"] == "torch.bfloat16"
    assert report["half"]["logps"] == pytest.approx(wanted, abs=0.5)
    assert report["half"]["logps"] != pytest.approx(wanted, abs=2e-4), "the control: another dtype is told apart"
    # The names are those that save_pretrained writes, whichever they were on the way in.
    for name in ("merged", "merged4", "merged5"):
        assert keys(home / name) == keys(home / f"{name}-again"), name
    assert keys(home / "merged") == keys(BASE)
    assert "language_model.model.norm.weight" in keys(home / "merged4")
    assert "vision_tower.vision_model.post_layernorm.weight" in keys(home / "merged4")
    assert "model.language_model.norm.weight" in keys(home / "merged5")
    assert {"adapter_config.json", "config.json"} <= launch.strictly_json(home)
    # And back: a model folder is converted like a run.
    assert export(home / "merged4", "--names", "5", "--to", home / "back")[0] == 0
    assert (home / "back" / "model.safetensors").read_bytes() == (home / "merged5" / "model.safetensors").read_bytes()


def test_adapter_there_and_back(export, tmp_path):
    """With a whole module beside LoRA; the names of transformers 4 merge as well as those of 5."""
    oracle.make_adapter(BASE, tmp_path / "five", whole=["multi_modal_projector"])
    file = tmp_path / "five" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "someone/tiny-llava"}))
    at_base = ("--base", BASE)
    assert export(tmp_path / "five", "--names", "4", "--to", tmp_path / "four", *at_base)[0] == 0
    with safe_open(tmp_path / "four" / "adapter_model.safetensors", "pt") as file:
        assert "base_model.model.multi_modal_projector.linear_1.weight" in file.keys()  # noqa: SIM118
        assert "base_model.model.language_model.model.layers.0.mlp.up_proj.lora_A.weight" in file.keys()  # noqa: SIM118
    config = json.loads((tmp_path / "four" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["multi_modal_projector"]
    assert "language_model.model.layers.3.self_attn.q_proj" in config["target_modules"]
    assert config["base_model_name_or_path"] == "someone/tiny-llava", "the public name, not where it lies"
    assert "base_model: someone/tiny-llava" in (tmp_path / "four" / "README.md").read_text()
    assert export(tmp_path / "four", "--to", tmp_path / "back", *at_base)[0] == 0
    before, after = (safe_open(tmp_path / f / "adapter_model.safetensors", "pt") for f in ("five", "back"))
    assert set(before.keys()) == set(after.keys())
    assert all(before.get_tensor(name).equal(after.get_tensor(name)) for name in before.keys())  # noqa: SIM118

    from peft import PeftModel

    _, model = oracle.load(BASE, oracle.torch.float32)
    theirs = PeftModel.from_pretrained(model, str(tmp_path / "back")).merge_and_unload().state_dict()
    for name in ("four", "five"):
        to = tmp_path / f"merged-{name}"
        assert export(tmp_path / name, "--format", "merged", "--names", "5", "--to", to, *at_base)[0] == 0
        with safe_open(to / "model.safetensors", "pt") as ours:
            for key in ours.keys():  # noqa: SIM118
                assert oracle.torch.allclose(ours.get_tensor(key), theirs[key], atol=1e-6), key


@pytest.mark.parametrize("name", ["internvl", "smolvlm"])
def test_a_head_of_its_own_stays_one(export, tmp_path, name):
    """Merged as peft merges it where a config leaves it to its class whether head and embedding are one, into other names than
    its files have, and where both conventions are the same."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    base = tiny_families.make_base(name, tmp_path / "base")
    oracle.make_adapter(base, tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), str(tmp_path / "adapter"))
    theirs = wrapped.merge_and_unload().state_dict()
    plain = AutoModelForImageTextToText.from_pretrained(base).state_dict()
    assert not theirs["lm_head.weight"].equal(theirs[next(n for n in theirs if n.endswith("embed_tokens.weight"))])
    to = tmp_path / "merged"
    code, said = export(tmp_path / "adapter", "--format", "merged", "--names", "5", "--to", to, "--base", base)
    assert code == 0, said
    ours = AutoModelForImageTextToText.from_pretrained(to).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(oracle.torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    assert not all(ours[key].equal(plain[key]) for key in ours), "the control"


def test_mistakes(demo, export, tmp_path):
    folder, to = demo[0], tmp_path / "out"

    def says(words, *arguments):
        code, said = export(*arguments, "--to", to)
        assert code == 2, said
        assert words in said
        assert not to.exists()
        assert not list(tmp_path.glob("*.tmp")), "nothing is left behind"

    copy = tmp_path / "run"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("tensorboard", "export"))
    says("can be exported as adapter or merged", folder, "--format", "full")
    says("has no checkpoint 'step-7'; there: step-0", folder, "--checkpoint", "step-7")
    says(
        "is neither a folder here nor a model the hub gives us",
        folder,
        "--format",
        "merged",
        "--base",
        "nobody/nothing",
    )
    says("is no size", folder, "--format", "merged", "--shard-size", "large")
    says("nothing svco can export", ROOT / "tests")
    says("it takes a hub id", folder, "--base-name", str(tmp_path))
    (checkpoint,) = (copy / "checkpoints").glob("step-*")
    weights = checkpoint / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    says("is damaged: trainable.safetensors has other contents", checkpoint)
    (copy / "state.json").unlink()
    with pytest.warns(UserWarning, match="passing over"):
        says("has no valid checkpoint", copy)
    other = tmp_path / "other"
    shutil.copytree(BASE, other)
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (other / "config.json").write_text(json.dumps(config))
    says("it would be another model", folder, "--format", "merged", "--base", other)
    says("weights that its architecture does not know", folder, "--format", "merged", "--base", other, "--other-base")
    oracle.make_adapter(BASE, tmp_path / "fit")
    stored = tmp_path / "fit" / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({k.replace("layers.0", "layers.9"): v for k, v in load_file(stored).items()}, stored)
    says("does not fit the base", tmp_path / "fit", "--base", BASE)
    says("does not fit the base", tmp_path / "fit", "--base", BASE, "--format", "merged")
    (other / "model.safetensors").unlink()
    says("lacks 1 of its 1 weight files", folder, "--format", "merged", "--base", other, "--other-base")
    to.mkdir()
    (to / "mine").touch()
    code, said = export(folder, "--to", to)
    assert (code, "is not empty" in said) == (2, True)
    assert (to / "mine").exists()

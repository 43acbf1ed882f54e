"""An export handed on as its own card says: served and asked about pictures, evaluated, and pushed to a hub on this machine."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import launch
import pytest
import torch
import yaml
from hub_server import loopback_hub
from launch import ENVIRONMENT
from places import BASE, ROOT
from serving import served

from svco.data.pictures import decode_image
from svco.data.shards import ShardSet

PUSH = """
import json, sys
from svco.cli import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["svco", "export", *line]
    try:
        main()
    except SystemExit as done:
        print("exit code", done.code, flush=True)
"""


def export(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "svco", "export", *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True
    )


def blocks(card, language):
    return re.findall(rf"```{language}\n(.*?)\n```", card, re.S)


@pytest.fixture(scope="module")
def merged(demo, tmp_path_factory):
    """The demo's run, merged, with its evaluation told on the card."""
    folder = tmp_path_factory.mktemp("handed")
    done = export(demo[0], "--format", "merged", "--to", folder / "merged")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_card_serves_it(merged, tmp_path, monkeypatch):
    """The lines of the card, with this machine's port and pictures of the data in place of the ones it names."""
    for package in ("openai", "fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"NOT TESTED: needs {package}: pip install 'svco[test]'")
    card = (merged / "merged" / "README.md").read_text()
    (shell,), (asking,) = blocks(card, "sh"), blocks(card, "py")
    line = next(line for line in shell.splitlines() if line.startswith("transformers serve"))
    shards = ShardSet.open(str(ROOT / "data_shards" / "heldout-000000.tar"))
    pairs = [pair for pair in map(shards.read, range(40)) if pair.text.contrast == "attribute"][:2]
    said = {}
    with served(line.split()[2], tmp_path / "log", cwd=merged / "merged") as address:
        for pair in pairs:
            for side, image in enumerate(pair.images):
                picture = "data:image/jpeg;base64," + base64.b64encode(image).decode()
                code = asking.replace("http://localhost:8000/v1", address)
                code = code.replace("https://example.org/picture.jpg", picture)
                code = code.replace("What is in the picture?", pair.text.query)
                with redirect_stdout(io.StringIO()) as answer:
                    exec(code, {})
                said[pair.text.key, side] = answer.getvalue().strip()
    monkeypatch.chdir(merged / "merged")
    loaded = {}
    exec(blocks(card, "python")[0], loaded)
    alone = {(pair.text.key, side): told_by(loaded, pair, side) for pair in pairs for side in (0, 1)}
    assert said == alone, "the server says what the model says that the card loads"
    assert all(said[pair.text.key, 0] != said[pair.text.key, 1] for pair in pairs), (
        "each time of the picture that was sent"
    )


def told_by(loaded, pair, side):
    """The greedy answer of the model that the card's code loaded."""
    model, processor = loaded["model"].eval(), loaded["processor"]
    content = [{"type": "image"}, {"type": "text", "text": pair.text.query}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = decode_image(pair.images[side], "an image")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with torch.no_grad():
        made = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    return processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_figures_and_the_hub(demo, tmp_path):
    """Evaluated, exported again with the figures, pushed: the model index holds them, and mistakes are sentences."""
    run, wanted = demo[0], "heldout=data_shards/heldout-000000.tar"
    options = ("--adapter", run / "adapter", "--set", wanted, "--pairs", 12, "--workers", 0)
    options = ("--base", BASE, "--out", tmp_path / "eval", *options)
    assert launch.here("eval.py", *options) == 0
    other = json.loads((tmp_path / "eval" / "eval.json").read_text())
    trained = json.loads((run / "heldout.json").read_text())
    other["model"]["weights"]["adapter"] = "0" * 32
    (tmp_path / "of-another").mkdir()
    (tmp_path / "of-another" / "eval.json").write_text(json.dumps(other))

    with loopback_hub() as hub:

        def push(*lines, **environment):
            environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_OFFLINE": "0"} | environment
            line = [sys.executable, "-c", PUSH, json.dumps([list(map(str, words)) for words in lines])]
            environment = ENVIRONMENT | {"HF_HUB_DISABLE_XET": "1"} | environment
            done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
            said = " ".join((done.stdout + done.stderr).split())
            assert hub.token not in said and "Traceback" not in said, said
            return re.findall(r"exit code (\S+)", done.stdout), said

        out = tmp_path / "out"
        codes, said = push(
            (run, "--format", "merged", "--eval", tmp_path / "eval", "--to", out, "--push", "me/tiny"),
            (out, "--push", "me/tiny", "--public"),
        )
        assert codes == ["0", "0"], said
        there = hub.repos["me/tiny"]
        assert there["private"], "made private, and what is there does not become public by a second push"
        assert there["files"] == {file.name: file.read_bytes() for file in out.iterdir()}
        assert hub.asked.count("PUT") == 1, "weights that are there are not sent again"
        index = yaml.safe_load(there["files"]["README.md"].decode().split("---")[1])["model-index"]
        figures = {result["dataset"]["type"]: result["metrics"][0]["value"] for result in index[0]["results"]}
        assert figures == {
            f"held-out pairs of {run.name}": pytest.approx(trained["after"]["pair_accuracy"], abs=1e-5),
            "heldout": pytest.approx(other["sets"]["heldout"]["pair_accuracy"]["value"], abs=1e-5),
        }

        hub.refuse = {"/commit/main": 403}
        changed = tmp_path / "changed"
        shutil.copytree(out, changed)
        (changed / "config.json").write_text((changed / "config.json").read_text() + " ")
        table = (
            ((out, "--push", "me/tiny"), "may not write there"),
            ((changed, "--push", "me/tiny"), "is not what was written there"),
            ((out, "--push", "tiny"), "it takes organisation/name"),
            ((out, "--public"), "--public goes with --push"),
            ((run, "--eval", tmp_path / "of-another", "--to", tmp_path / "n"), "of other weights than"),
            ((run, "--eval", tmp_path, "--to", tmp_path / "n"), "is no finished evaluation"),
        )
        codes, said = push(*(line for line, _ in table))
        assert codes == ["2"] * len(table), said
        assert all(sentence in said for _, sentence in table), said
        asked = len(hub.asked)
        codes, said = push((out, "--push", "me/tiny"), HF_TOKEN="")
        assert codes == ["2"] and "export HF_TOKEN" in said
        assert len(hub.asked) == asked and not (tmp_path / "n").exists(), "nothing was asked without a token"
        codes, said = push((out, "--push", "me/tiny"), HF_TOKEN="hf_wrong")
        assert codes == ["2"] and "does not know the token" in said

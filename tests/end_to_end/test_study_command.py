"""A small study through the real commands: stopped on the way, gone on with, and told."""

import json
import shutil
import signal
import subprocess
import sys
import time

import launch
import pytest
import yaml
from places import ROOT

STUDY = {
    "name": "small",
    "recipe": "launchers/recipes/tiny.yaml",
    "seeds": [0],
    "against": ["S-VCO", "stamped"],
    "settings": {
        "optim.steps": 3,
        "optim.lr": 2e-3,
        "model.reference": "cached",
        "data.workers": 0,
        "evaluate.every": 0,
    },
    "data": {"stamped": {"world": "artefact", "pairs": 96}, "VLF": {"corrupt": "stamped", "kind": "noise"}},
    "validation": {"world": "plain", "split": "val", "pairs": 32},
    "tests": {
        "clean": {"world": "plain", "split": "heldout", "pairs": 48},
        "stamped": {"world": "artefact", "side": "random", "split": "heldout", "pairs": 48},
        "captions": {"world": "captions", "split": "heldout", "pairs": 16},
    },
    "methods": {"S-VCO": {}, "DPO": {"objective.name": "dpo"}},
    "trials": [{"optim.lr": 1e-3}, {"optim.lr": 4e-3}],
    "groups": [
        {"name": "main", "rows": [["DPO", "VLF"]], "tests": ["clean", "captions"], "generate": 8},
        {"name": "shift", "kind": "artefact", "rows": [["S-VCO", "stamped"]], "tests": ["clean", "stamped"]},
    ],
}


def start(file, *arguments):
    return subprocess.Popen(
        [sys.executable, "launchers/study.py", "--recipe", str(file), "--jobs", "2", *arguments],
        cwd=ROOT, env=launch.ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder, output of the stopped call, done files it left with their times, output of the second call)."""
    folder = tmp_path_factory.mktemp("study")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | {"root": str(folder / "out")}))
    first = start(file)
    until = time.monotonic() + 300
    while time.monotonic() < until and len(list(folder.glob("out/trials/*/train.done"))) < 3 and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    stopped, _ = first.communicate(timeout=300)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/*/*.done")}
    second = start(file)
    output, _ = second.communicate(timeout=600)
    return folder / "out", (first.returncode, stopped), kept, (second.returncode, output)


def test_a_stopped_study_goes_on_and_runs_nothing_twice(study):
    folder, (code, stopped), kept, (end, output) = study
    assert code == 75, stopped
    assert "the same command goes on with them" in stopped
    assert len(kept) >= 3
    assert end == 0, output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(folder.glob("trials/*/train.done"))) == 4
    # The one reference of a data set serves all its trials and cells; DPO and S-VCO ask for the same cells of the validation's.
    assert len(list(folder.glob("runs/references/*.safetensors"))) == 3


def test_the_page_tells_what_the_scores_say(study):
    folder = study[0]
    assert {"results.jsonl", "eval.json", "metrics.jsonl"} <= launch.strictly_json(folder)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(r["group"], r["method"], r["data"]) for r in rows] == [
        ("main", "BASE", ""),
        ("main", "DPO", "VLF"),
        ("shift", "BASE", ""),
        ("shift", "S-VCO", "stamped"),
    ]
    page = (folder / "report.md").read_text()
    assert "4 of 4 tasks are finished" in page
    for row in rows:
        measured = row["measures"]
        told = json.loads((ROOT / row["evaluation"] / "eval.json").read_text())["sets"]["clean"]
        assert measured["clean.pair_accuracy"] == pytest.approx(told["pair_accuracy"]["value"], abs=1e-12)
        assert f"{100 * measured['clean.pair_accuracy']:.1f}" in page
    assert 0 <= rows[0]["measures"]["clean.hallucination"] <= 1
    assert rows[2]["measures"]["stamped.penalty"] != 0
    assert rows[3]["settings"]["optim.lr"] in (1e-3, 4e-3)
    for picture in ("main_pair_accuracy", "main_perplexity", "main_kept", "artefact"):
        assert (folder / f"{picture}.png").stat().st_size > 10_000
        assert f"({picture}.png)" in page


def test_a_command_that_fails_is_named_with_the_end_of_its_log(study, tmp_path):
    """In a study whose base is evaluated already."""
    shutil.copytree(study[0], tmp_path / "out")
    broken = STUDY | {
        "root": str(tmp_path / "out"),
        "trials": [],
        "settings": STUDY["settings"] | {"lora.targets": "q_projj"},
    }
    broken["groups"] = [STUDY["groups"][0] | {"rows": [["S-VCO", "stamped"]]}]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(broken))
    process = start(tmp_path / "s.yaml")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "failed: S-VCO, stamped, seed 0" in output
    assert "lora.targets names q_projj" in output
    assert "Traceback" not in output
    assert "1 of 2 tasks are finished" in (tmp_path / "out" / "report.md").read_text(), "what is finished is told"

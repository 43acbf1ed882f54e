"""The benchmark and the GPU check as a person starts them."""

import json
import subprocess
import sys

import launch
import pytest
from places import ROOT

ZERO3 = ("--ds", "ds_configs/zero3.json", "--repetitions", "1")


@pytest.fixture
def bench(capsys):
    """Runs launchers/bench.py in this process: arguments -> (exit code, stdout, stderr)."""

    def run(*arguments):
        code = launch.here("bench.py", *arguments)
        return code, *capsys.readouterr()

    return run


def test_ladder_under_zero3_writes_table_figures_and_picture(tmp_path):
    rows = "six+six,authors-shaped,+ lockstep"
    output = launch.output(2, "launchers/bench.py", *ZERO3, "--rows", rows, "--out", tmp_path / "x")
    assert "| + lockstep |" in output
    assert (tmp_path / "x.md").read_text().strip() in output
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert launch.strictly_json(tmp_path) == {"x.json"}
    (result,) = json.loads((tmp_path / "x.json").read_text())
    moved = {
        row["row"]: sum(size for name, (_, size) in row["collectives"].items() if "gather" in name) / row["model_bytes"]
        for row in result["rows"]
    }
    assert moved["+ lockstep"] <= 2.0 < moved["authors-shaped"] < moved["six+six"]


@pytest.mark.slow
def test_scaling_launches_and_measures(tmp_path):
    with launch.default_port():
        line = [sys.executable, "launchers/bench.py", "--scaling", "2", *ZERO3, "--out", str(tmp_path / "x")]
        done = subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "x.md").read_text().strip() in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("| 2 on 1 |"))
    step, _, _, alone, difference, _, gathered, reduced = [cell.split()[0] for cell in line.strip("|").split("|")[1:]]
    assert float(step) > 0 < float(alone)
    assert float(difference) == pytest.approx(float(step) - float(alone), abs=2e-3)
    assert float(gathered) > 1 > float(reduced) > 0, "LoRA gathers the model and reduces its adapters"


def test_loader_keeps_up(bench):
    code, out, err = bench("--data", "data_shards/train-000000.tar")
    assert code == 0, out + err
    line = next(line for line in out.splitlines() if "the tiny model on this CPU" in line)
    assert float(line.split("|")[-2]) >= 5, line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shape", "llava"], "--shape is 'llava'; known: tiny, llava15-7b"),
        (["--rows", "+ magic"], "--rows: unknown"),
        (["--pairs", "0"], "must be at least 1"),
        (["--peer", "swift"], "cannot import swift"),
        (["--peer", "trl", "--peer-python", "/no/python"], "/no/python cannot import trl"),
        (["--objective", "dop"], "known objectives"),
    ],
)
def test_mistakes(bench, arguments, says):
    code, _, err = bench(*arguments)
    assert code == 2
    assert says in " ".join(err.split())
    assert "Traceback" not in err


def test_gpu_check_without_a_gpu_and_without_deepspeed_or_flash_attn(tmp_path):
    """A bare box: the dry run goes through the same functions and processes, and writes nothing."""
    out, bare = tmp_path / "out", tmp_path / "bare"
    bare.mkdir()
    absent = ["deepspeed", "flash_attn", "webdataset", "tensorboard"]
    # In every process that is started: no such package is found there.
    (bare / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({absent}))\n")
    done = subprocess.run(
        [sys.executable, ROOT / "launchers" / "gpu_check.py", "--out", out],
        cwd=ROOT,
        env=launch.ENVIRONMENT | {"PYTHONPATH": f"{bare}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No CUDA GPU here: a dry run" in done.stdout
    assert "FAILED" not in done.stdout
    assert "attention, flash | – | – | not run" in done.stdout
    assert "| + lockstep |" in done.stdout
    assert "Left out" not in done.stdout
    assert not out.exists()

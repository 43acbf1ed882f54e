"""The benchmark and the GPU check as a person starts them."""

import json
import subprocess
import sys

import launch
import pytest
from places import ROOT


def bench(*arguments, ranks=0):
    program = [str(ROOT / "launchers" / "bench.py"), *arguments]
    port = ["--master_port", str(launch.free_port())]
    line = ["deepspeed", "--num_accelerators", str(ranks), *port, *program] if ranks else [sys.executable, *program]
    return subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=400)


def test_ladder_under_zero3_writes_table_figures_and_picture(tmp_path):
    rows = "six+six,authors-shaped,+ lockstep"
    done = bench(
        "--ds", "ds_configs/zero3.json", "--repetitions", "1", "--rows", rows, "--out", str(tmp_path / "x"), ranks=2
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| + lockstep |" in done.stdout
    assert (tmp_path / "x.md").read_text().strip() in done.stdout
    assert (tmp_path / "x.png").stat().st_size > 10_000
    (result,) = json.loads((tmp_path / "x.json").read_text())
    moved = {
        row["row"]: sum(size for name, (_, size) in row["collectives"].items() if "gather" in name) / row["model_bytes"]
        for row in result["rows"]
    }
    assert moved["+ lockstep"] <= 2.0 < moved["authors-shaped"] < moved["six+six"]


@pytest.mark.slow
def test_scaling_launches_and_measures(tmp_path):
    with launch.default_port():
        done = bench(
            "--scaling", "2", "--ds", "ds_configs/zero3.json", "--repetitions", "1", "--out", str(tmp_path / "x")
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "x.md").read_text().strip() in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("| 2 on 1 |"))
    step, _, _, alone, difference, _, gathered, reduced = [cell.split()[0] for cell in line.strip("|").split("|")[1:]]
    assert float(step) > 0 < float(alone)
    assert float(difference) == pytest.approx(float(step) - float(alone), abs=2e-3)
    assert float(gathered) > 1 > float(reduced) > 0, "LoRA gathers the model and reduces its adapters"


def test_loader_keeps_up():
    done = bench("--data", "data_shards/train-000000.tar")
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if "the tiny model on this CPU" in line)
    assert float(line.split("|")[-2]) >= 5, line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shape", "llava"], "--shape is 'llava'; known: tiny, llava15-7b"),
        (["--rows", "+ magic"], "--rows: unknown"),
        (["--pairs", "0"], "must be at least 1"),
        (["--peer", "trl"], "needs --ds"),
        (["--objective", "dop"], "known objectives"),
    ],
)
def test_mistakes(arguments, says):
    done = bench(*arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_swift_is_prepared(tmp_path):
    done = bench("--peer", "swift", "--out", str(tmp_path / "swift"))
    assert done.returncode == 0, done.stderr
    assert "nothing was run" in done.stdout
    first = json.loads((tmp_path / "swift" / "train.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["content"].startswith("<image>")
    assert first["rejected_response"] != first["messages"][1]["content"]


def test_gpu_check_without_a_gpu_and_without_deepspeed_or_flash_attn(tmp_path):
    """A bare box: the dry run goes through the same functions, and writes nothing."""
    program = str(ROOT / "launchers" / "gpu_check.py")
    script = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['deepspeed', 'flash_attn', 'webdataset', 'tensorboard'])); "
        f"sys.argv = ['gpu_check.py', '--out', {str(tmp_path)!r}]; runpy.run_path({program!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No CUDA GPU here: a dry run" in done.stdout
    assert "FAILED" not in done.stdout
    assert "attention, flash | – | – | not run" in done.stdout
    assert "| + lockstep |" in done.stdout
    assert not list(tmp_path.iterdir())

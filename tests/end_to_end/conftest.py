"""The demo's run, once for everyone who looks at it."""

import subprocess

import launch
import pytest
from places import ROOT


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """``make demo``'s command to the letter, with its run folder elsewhere: (run folder, output)."""
    root = tmp_path_factory.mktemp("runs")
    makefile = (ROOT / "Makefile").read_text()
    line = "deepspeed --num_accelerators 2 launchers/train.py --ds ds_configs/zero3.json"
    assert f"\t{line}\n" in makefile
    assert "make demo" in (ROOT / "README.md").read_text()
    process = subprocess.run(
        [*line.split(), f"run.root={root}", "run.name=demo"],
        cwd=ROOT,
        env=launch.ENVIRONMENT,
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert process.returncode == 0, (process.stdout + process.stderr)[-6000:]
    return root / "demo", process.stdout, process.stderr

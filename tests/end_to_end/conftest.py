"""The demo's run, once for everyone who looks at it, whichever worker they are in."""

import json
import subprocess

import launch
import pytest
from places import ROOT


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """``make demo``'s command to the letter, with its run folder elsewhere: (run folder, output)."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in launch.ENVIRONMENT else base) / "demo"
    told = root / "told.json"
    with launch.default_port():
        if not told.exists():
            told.parent.mkdir(exist_ok=True)
            told.write_text(json.dumps(run_demo(root)))
    code, out, err = json.loads(told.read_text())
    assert code == 0, (out + err)[-6000:]
    return root / "demo", out, err


def run_demo(root):
    makefile = (ROOT / "Makefile").read_text()
    line = "svco train --ds ds_configs/zero3.json --ranks 2"
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
    return process.returncode, process.stdout, process.stderr

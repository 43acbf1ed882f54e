"""The twin of the study at 7B through the real commands and an emulation of SLURM's contract (tests/slurm_queue.py)."""

import json

import pytest
from places import ROOT
from slurm_queue import Queue

from svco.commands.study.cells import cell_tasks
from svco.commands.study.spec import load_study
from svco.record.state import RunState

TWIN = "launchers/recipes/study_twin.yaml"


@pytest.mark.slow
def test_the_twin_is_submitted_preempted_and_collected(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    queue, named = Queue(tmp_path / "slurm"), ("--recipe", TWIN, "--root", str(tmp_path / "out"))
    assert queue.study(*named, "--submit")[0] == 0
    data, trials, cells = jobs = queue.submitted()
    seen = []

    def trained_two_steps():
        """Of the run that the trials will have chosen settings for."""
        for folder in (tmp_path / "out" / "runs").glob("cells-s-vco-*"):
            state = RunState.read(folder)
            if state and state.state == "running" and state.step >= 1:
                seen.append(state.step)
        return bool(seen)

    queue.run(jobs, ("cells", 1, trained_two_steps))
    logs = "\n".join(path.read_text() for path in queue.folder.glob("*.log"))
    assert data.succeeded and trials.succeeded and cells.succeeded, logs
    assert cells.codes == {0: [0], 1: [0, 0], 2: [0]} and queue.requeued() == [f"{cells.number}_1"], logs
    code, output = queue.study(*named, "--collect")
    assert code == 0 and "cells: 3 of 3 are finished" in output, output
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["BASE", "S-VCO", "DPO"]

    from dataclasses import replace

    stopped = cell_tasks(replace(load_study(TWIN), root=str(tmp_path / "out")))[1]
    log = (stopped.folder / "log.txt").read_text()
    assert "stopped: SIGTERM" in log
    steps = [json.loads(line)["step"] for line in (stopped.run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 4

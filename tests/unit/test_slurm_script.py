"""The logic of launchers/train.slurm with stand-ins for srun, scontrol and svco: an emulation of SLURM's contract.

(A single-node SLURM ran the script for real once: launchers/results/2026-11-25_slurm.md.)
"""

import os
import signal
import subprocess
import time

import launch
import pytest
from places import ROOT

SCRIPTS = sorted([*ROOT.glob("launchers/**/*.sh"), *ROOT.glob("launchers/**/*.slurm")])
SCRIPT = ROOT / "launchers" / "train.slurm"
STAND_INS = {
    # Runs until it is told to stop or has been given nothing to wait for; then leaves a checkpoint if it is to.
    "srun": """
        printf '%s\\n' "$MASTER_ADDR:$MASTER_PORT $OMP_NUM_THREADS $*" > srun.called
        trap 'echo USR1 > got; stop=1' USR1; trap 'echo TERM > got; stop=1' TERM
        touch started
        while [ -n "$WAITS" ] && [ -z "${stop-}" ]; do sleep 0.05; done
        [ -z "$PART" ] || { mkdir -p out/references; echo "$PART" > out/references/0a1b.safetensors; }
        [ -z "$STEP" ] || { mkdir -p out/try/checkpoints; echo "$STEP" > out/try/checkpoints/latest; }
        exit "$SRUN_CODE" """,
    "scontrol": """
        [ "$1" = show ] && { echo node-3; echo node-4; exit; }
        echo "$*" > requeued""",
    "svco": 'echo "$*" > asked; exit "$SVCO_CODE"',
}


def submit(folder, *arguments, send=None, **stands):
    """Runs the script as a job of 2 nodes; ``send``: a signal it gets once srun runs. (exit code, output)."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node-[3-4]",
        "SLURM_JOB_ID": "41234",
        "SLURM_CPUS_PER_TASK": "12",
        "WAITS": "1" if send else "",
        "STEP": "",
        "PART": "",
        "SRUN_CODE": "0",
        "SVCO_CODE": "0",
    }
    process = subprocess.Popen(
        ["bash", str(SCRIPT), *arguments], cwd=folder, env=environment | stands, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    while send and not (folder / "started").exists() and process.poll() is None:
        time.sleep(0.02)
    if send:
        process.send_signal(send)
    output, _ = process.communicate(timeout=20)
    return process.returncode, output


ARGUMENTS = ("try", "--ds", "ds.json", "run.root=out")


def test_a_finished_run(tmp_path):
    assert submit(tmp_path, *ARGUMENTS)[0] == 0
    called = (tmp_path / "srun.called").read_text().split()
    assert called[:2] == ["node-3:21234", "12"], "rank 0's host, a port of the job's own, a task's cores"
    assert called[-6:] == ["launchers/train.py", "--ds", "ds.json", "run.root=out", "run.name=try", "run.resume=auto"]
    assert (tmp_path / "asked").read_text() == "status out/try\n"
    assert not (tmp_path / "requeued").exists()


def test_the_run_is_where_the_script_looks_whatever_the_recipe_says(tmp_path):
    assert submit(tmp_path, "try", "--recipe", "of_another_root.yaml")[0] == 0
    assert (tmp_path / "srun.called").read_text().split()[-3:] == ["run.root=runs", "run.name=try", "run.resume=auto"]
    assert (tmp_path / "asked").read_text() == "status runs/try\n"


def test_a_part_of_the_cached_reference_is_progress(tmp_path):
    """Another run's, of the same root, is not: it lay there before."""
    stopped = {"SVCO_CODE": "75", "SRUN_CODE": "75", "send": signal.SIGUSR1}
    (tmp_path / "out" / "references").mkdir(parents=True)
    (tmp_path / "out" / "references" / "0a1b.safetensors").write_text("earlier")
    assert submit(tmp_path, *ARGUMENTS, PART="more", **stopped)[0] == 0
    assert (tmp_path / "requeued").exists()
    for name in ("requeued", "started"):
        (tmp_path / name).unlink()
    code, output = submit(tmp_path, *ARGUMENTS, **stopped)
    assert code == 75
    assert "nor a part of a cached reference" in output
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("svco", "srun", "step", "send", "requeued", "code", "says"),
    [
        ("75", "75", "step-000008", signal.SIGUSR1, True, 0, "to go on from step-000008"),
        ("75", "75", "", signal.SIGUSR1, False, 75, "no checkpoint was made"),
        ("1", "137", "step-000008", None, True, 0, "queued again"),  # a host was lost
        ("1", "2", "", None, False, 2, "no checkpoint was made"),  # a mistake in the recipe
        ("3", "1", "step-000008", None, False, 1, "svco status says 3"),  # somebody else runs it
        ("75", "75", "step-000008", signal.SIGTERM, False, 75, "cancelled"),  # scancel
    ],
)
def test_queued_again_or_not(tmp_path, svco, srun, step, send, requeued, code, says):
    found = submit(tmp_path, *ARGUMENTS, send=send, SVCO_CODE=svco, SRUN_CODE=srun, STEP=step)
    assert (found[0], says in found[1]) == (code, True), found[1]
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 41234\n"
    if send:
        assert (tmp_path / "got").read_text().strip() == send.name.removeprefix("SIG")


def test_without_a_name(tmp_path):
    code, output = submit(tmp_path, "--ds", "ds.json")
    assert code == 2
    assert "usage:" in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_scripts_are_sound(script):
    done = subprocess.run(["shellcheck", script], env=launch.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

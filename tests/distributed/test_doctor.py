"""The doctor on real ranks: fine where all is, and each fault on the machine found and said, in time."""

import os
import socket
import subprocess
import sys

import launch
import pytest
from places import ROOT

from svco.basics.dist import world_from_environment
from svco.basics.errors import UserError


def doctor(arguments, size=2, ranks=None, **each):
    """Starts ``ranks`` (default all) of a world of ``size`` by hand; ``each`` is rank -> its own variables. Outputs, codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "launchers/doctor.py", "--megabytes", "1", *arguments],
            cwd=ROOT,
            env=launch.ENVIRONMENT
            | {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(size)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            | each.get(f"rank{r}", {}),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for r in (ranks or range(size))
    ]
    return [(process.communicate(timeout=100)[0], process.returncode) for process in processes]


def test_all_is_well_by_the_launcher(tmp_path):
    line = ["deepspeed", "--num_accelerators", "2", "--master_port", "29671", "launchers/doctor.py", "--megabytes", "1"]
    line += ["--ds", "ds_configs/zero3.json", f"run.root={tmp_path}", "--env", "HF_HUB_OFFLINE=1"]
    done = subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    for name in ("versions", "run.root", "base model", "shards", "network", "all-gather", "all-reduce"):
        assert f"OK    {name}" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_faults_are_found(tmp_path):
    """Another environment on rank 1, an interface, a base model and shards that are not there, a folder nobody can make."""
    (tmp_path / "file").touch()
    arguments = [
        "model.base=nowhere/tiny",
        "data.train=nowhere/*.tar",
        f"run.root={tmp_path}/file/runs",
        "--timeout",
        "20",
    ]
    apart = {"HF_HOME": "/elsewhere", "OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "nothere0"}
    (report, code), (_, other) = doctor(arguments, rank1=apart)
    assert code == other == 1
    host = socket.gethostname()
    assert f"HF_HOME: none on {host} (rank 0); /elsewhere on {host} (rank 1)" in report
    assert "OMP_NUM_THREADS: 1 on" in report
    for name, says in (
        ("run.root", "Not a directory"),
        ("base model", "nowhere/tiny is no folder, and no model in this host's Hugging Face cache"),
        ("shards", "No shards match 'nowhere/*.tar'"),
        ("network", "gloo does not connect all ranks: rank"),
    ):
        assert any(line.startswith(f"FAIL  {name}") and says in line for line in report.splitlines()), report
    assert "4 failed" in report


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        ([0], "1 of 2 ranks did not arrive within 4 s: rank 1. Arrived:"),
        ([1], "cannot reach rank 0 at 127.0.0.1:"),
    ],
)
def test_a_rank_never_comes(ranks, says):
    ((output, code),) = doctor(["--timeout", "4"], ranks=ranks)
    assert code == 2
    assert says in " ".join(output.split())
    assert "Traceback" not in output


def test_srun_says_who_a_rank_is(monkeypatch):
    """srun's own variables, real processes; MASTER_ADDR comes from the job script."""
    code = (
        "import os; from svco import engine; from svco.basics.dist import world_from_environment as w; world = w(); "
        "engine.start(world); print(world.rank, world.size, world.local_rank, world.gather(os.environ['RANK'])); engine.stop()"
    )

    def variables(number):
        return {
            "SLURM_PROCID": str(number),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_LOCALID": str(number),
            "SLURM_NTASKS": "2",
        }

    def task(number):
        told = variables(number) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29672"}
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=launch.ENVIRONMENT | told, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    assert not {"RANK", "MASTER_ADDR"} & os.environ.keys()
    tasks = [task(n) for n in (0, 1)]
    # Whoever starts first on a machine compiles DeepSpeed's operator, which takes minutes.
    outputs = [process.communicate(timeout=400)[0] for process in tasks]
    for number, output in enumerate(outputs):
        assert output.splitlines()[-1] == f"{number} 2 {number} ['0', '1']", output
    for name, value in variables(0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="srun started 2 tasks without MASTER_ADDR and MASTER_PORT"):
        world_from_environment()

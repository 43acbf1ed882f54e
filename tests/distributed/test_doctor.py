"""The doctor on real ranks: fine where all is, and each fault on the machine found and said, in time."""

import os
import socket
import subprocess

import launch
import pytest
from forked import forks, worlds
from places import ROOT

from svco.basics.dist import world_from_environment
from svco.basics.errors import UserError


class Doctor:
    """Ranks of a world of two that are started by hand: those of ``each``, rank -> its own variables."""

    def __init__(self, folder, arguments, each):
        line = [str(ROOT / "launchers" / "doctor.py"), "--megabytes", "1", *map(str, arguments)]
        places = worlds(2, launch.free_port())
        folder.mkdir()
        self.ranks = [
            (forks.start(line, folder / f"{rank}.txt", launch.ENVIRONMENT | places[rank] | own), folder / f"{rank}.txt")
            for rank, own in each.items()
        ]

    def told(self):
        """[(output, exit code)] of each."""
        for process, _ in self.ranks:
            process.join(300)
        return [(said.read_text(), process.exitcode) for process, said in self.ranks]


def test_all_is_well_by_the_launcher(tmp_path):
    line = ["deepspeed", "--num_accelerators", "2", "--master_port", "29671", "launchers/doctor.py", "--megabytes", "1"]
    line += ["--ds", "ds_configs/zero3.json", f"run.root={tmp_path}", "--env", "HF_HUB_OFFLINE=1"]
    done = subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    for name in ("versions", "run.root", "base model", "shards", "network", "all-gather", "all-reduce"):
        assert f"OK    {name}" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.fixture(scope="module")
def doctors(tmp_path_factory):
    """Three worlds at once, which wait for most of their time: one of many faults, two of which a rank never comes."""
    folder = tmp_path_factory.mktemp("doctors")
    (folder / "file").touch()
    many = ["model.base=nowhere/tiny", "data.train=nowhere/*.tar", f"run.root={folder}/file/runs", "--timeout", "20"]
    apart = {"HF_HOME": "/elsewhere", "OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "nothere0"}
    worlds = {"faults": (many, {0: {}, 1: apart}), 0: (["--timeout", "4"], {0: {}}), 1: (["--timeout", "4"], {1: {}})}
    started = {name: Doctor(folder / str(name), *world) for name, world in worlds.items()}
    return {name: doctor.told() for name, doctor in started.items()}


def test_faults_are_found(doctors):
    """Another environment on rank 1, an interface, a base model and shards that are not there, a folder nobody can make."""
    (report, code), (_, other) = doctors["faults"]
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
    ("rank", "says"),
    [
        (0, "1 of 2 ranks did not arrive within 4 s: rank 1. Arrived:"),
        (1, "cannot reach rank 0 at 127.0.0.1:"),
    ],
)
def test_a_rank_never_comes(rank, says, doctors):
    """``rank`` alone comes."""
    ((output, code),) = doctors[rank]
    assert code == 2
    assert says in " ".join(output.split())
    assert "Traceback" not in output


def test_srun_says_who_a_rank_is(monkeypatch, tmp_path):
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

    program = tmp_path / "task.py"
    program.write_text(code)
    assert not {"RANK", "MASTER_ADDR"} & os.environ.keys()
    meet = launch.ENVIRONMENT | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launch.free_port())}
    files = [tmp_path / f"{number}.txt" for number in (0, 1)]
    tasks = [forks.start([str(program)], file, meet | variables(number)) for number, file in enumerate(files)]
    for task in tasks:
        task.join(400)  # whoever starts first on a machine compiles DeepSpeed's operator, which takes minutes
    outputs = [file.read_text() for file in files]
    for number, output in enumerate(outputs):
        assert output.splitlines()[-1] == f"{number} 2 {number} ['0', '1']", output
    for name, value in variables(0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="srun started 2 tasks without MASTER_ADDR and MASTER_PORT"):
        world_from_environment()

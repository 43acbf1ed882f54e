"""Two hosts: the ways to launch over both, a host lost and the run continued, storage that is not shared."""

import re
import subprocess
import time

import launch
import pytest
from two_hosts import ADDRESSES, clean_environment, forwarded, free_port, missing, two_hosts, wait_until

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"NOT TESTED: {missing()}")

STEPS = 16
RECIPE = [
    f"optim.steps={STEPS}",
    "optim.global_batch=6",
    "optim.tokens_per_micro_batch=900",
    "data.train=data_shards/train-00000[01].tar",  # pdsh's other end, a shell, would take braces apart
    "data.validation=",
    "data.heldout=",
    "checkpoint.every=4",
]
DOCTOR = ["launchers/doctor.py", "--megabytes", "1", "--timeout", "40"]


def finish(process, timeout=200):
    """(output, exit code) of a started command."""
    output, _ = process.communicate(timeout=timeout)
    return output, process.returncode


def reached(metrics, step):
    return metrics.exists() and f'"step": {step},' in metrics.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hosts")
    for name in ("runs", "apart", "instead"):
        (made / name).mkdir()
    return made


@pytest.fixture(scope="module")
def hosts(folder):
    """Two hosts that share everything but one folder."""
    with two_hosts(folder, unshared=(folder / "apart", folder / "instead")) as found:
        yield found


@pytest.mark.slow
def test_a_lost_host_ends_the_run_and_a_new_one_takes_its_place(folder, zero3):
    """Killed after step 10 of 16 and continued from step 8, both over two hosts: together they are the run on one host."""
    arguments = ["--ds", str(zero3), *RECIPE, f"run.root={folder}/runs", "run.name=two"]
    metrics = folder / "runs" / "two" / "metrics.jsonl"
    with two_hosts(folder) as hosts:
        process = hosts.deepspeed("launchers/train.py", *arguments)
        wait_until(lambda: process.poll() is not None or reached(metrics, 10), "step 10", 200)
        assert process.poll() is None, process.communicate()[0]
        hosts.beta.kill()
        lost = time.monotonic()
        output, code = finish(process)
        assert time.monotonic() - lost < 60, output  # 9 s were seen on an idle machine
        assert code != 0
        assert "Another rank is gone or silent" in " ".join(re.sub(r"10\.77\.0\.\d: ?", "", output).split()), output
        assert not hosts.alpha.processes("launchers/train.py")
        assert not hosts.alpha.processes("deepspeed.launcher")
    with two_hosts(folder) as hosts:
        output, code = finish(hosts.deepspeed("launchers/train.py", *arguments, "run.resume=auto"))
        assert code == 0, output
    launch.run(2, zero3, *RECIPE, f"run.root={folder}/runs", "run.name=one")
    ours, theirs = launch.training(folder / "runs" / "two"), launch.training(folder / "runs" / "one")
    assert ours == theirs
    assert set(ours) == set(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_refused(hosts, folder):
    """By the doctor, who finds all else well (pdsh takes along what ~/.deepspeed_env says), and by the run."""
    output, code = finish(hosts.deepspeed(*DOCTOR, f"run.root={folder}/apart", "--env", "HF_HUB_OFFLINE=1"))
    assert code != 0
    assert f"FAIL  run.root           {folder}/apart is another folder on beta" in output
    assert "1 failed" in output
    assert "alpha is 10.77.0.1 (eth0, chosen), beta is 10.77.0.2 (eth0, chosen)" in output
    run = hosts.deepspeed("launchers/train.py", "--ds", "ds_configs/zero3.json", *RECIPE, f"run.root={folder}/apart")
    output, code = finish(run)
    assert code != 0
    words = " ".join(re.sub(r"10\.77\.0\.\d: ?", "", output).split())
    assert "is not the same folder on all nodes: beta cannot see" in words, output
    assert '"step": 1' not in "".join(p.read_text() for p in (folder / "apart").rglob("metrics.jsonl"))


def test_by_ssh_alone_the_environment_goes_along_and_its_faults_are_seen(hosts, folder):
    """launchers/ssh.sh from a shell without GLOO_SOCKET_IFNAME: the hosts' names lead to their loopback, as is said at once."""
    environment = forwarded() | {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(free_port()), "HF_HOME": "/h o/me"}
    del environment["GLOO_SOCKET_IFNAME"]
    command = ["launchers/ssh.sh", str(hosts.hostfile), *DOCTOR, f"run.root={folder}/runs", "--env", "HF_HOME=/h o/me"]
    output, code = finish(hosts.start(command, environment))
    assert code == 1, output
    assert "its own name leads to the loopback on alpha, beta" in output
    assert "FAIL  network            not tried" in output
    assert "2 failed" in output
    assert "HF_HOME is" not in output
    assert not hosts.beta.processes("doctor.py")


def test_torchrun_on_each_host(hosts, folder):
    environment = clean_environment() | forwarded()
    line = ["torchrun", "--nnodes", "2", "--nproc_per_node", "1", "--master_addr", ADDRESSES[0]]
    line += ["--master_port", str(free_port())]
    processes = [
        subprocess.Popen(
            host.command(*line, "--node_rank", str(number), *DOCTOR, f"run.root={folder}/runs"),
            env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for number, host in enumerate((hosts.alpha, hosts.beta))
    ]  # fmt: skip
    (output, code), (_, other) = [finish(process) for process in processes]
    assert code == other == 0, output
    assert "OK    ranks              2 on 2 hosts: alpha (1), beta (1)" in output
    assert "OK    network" in output

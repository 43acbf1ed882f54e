"""The logic of launchers/ssh.sh with stand-ins for ssh and deepspeed: how it ends, and what it puts on command lines.

(tests/distributed/test_two_hosts.py runs it over two real sshds.)
"""

import os
import subprocess
import time

import pytest
from places import ROOT

STAND_INS = {
    "ssh": 'echo "$*" >> lines; exec bash -c "${@: -1}"',
    # Host N ends after the Nth of the WAITS, with the Nth of the CODES.
    "deepspeed": """
        while [ "$1" != --node_rank ]; do shift; done
        waits=($WAITS) codes=($CODES)
        trap 'kill $!' TERM
        sleep "${waits[$2]}" & wait $!
        echo "home: $HF_HOME"
        exit "${codes[$2]}" """,
}


def start(folder, waits, codes):
    """(exit code, output, seconds) of a program that runs on three hosts."""
    (folder / "bin").mkdir()
    for name, body in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "hosts").write_text("alpha slots=1\nbeta slots=1\n# a comment\ngamma slots=1\n")
    began = time.monotonic()
    done = subprocess.run(
        ["bash", str(ROOT / "launchers" / "ssh.sh"), "hosts", "program.py"], cwd=folder, text=True, timeout=60,
        env={"PATH": f"{folder}/bin:{os.environ['PATH']}", "MASTER_ADDR": "10.0.0.1", "HF_HOME": "/h o/me",
             "HF_TOKEN": "hf_secret", "DS_API_KEY": "hf_secret", "OMP_NUM_THREADS": "3"}
        | {"WAITS": waits, "CODES": codes},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout, time.monotonic() - began


def test_hosts_that_finish_together_are_a_success(tmp_path):
    code, output, _ = start(tmp_path, "0 0 0.5", "0 0 0")
    assert code == 0, output
    assert "no such job" not in output
    assert sorted(line.partition(":")[0] for line in output.splitlines()) == ["alpha", "beta", "gamma"], output


@pytest.mark.parametrize("waits", ["30 0 30", "0 0 30", "0 0.7 30"])
def test_the_first_that_fails_ends_all(tmp_path, waits):
    code, output, seconds = start(tmp_path, waits, "0 9 0")
    assert code == 9, output
    assert seconds < 20


def test_tokens_stay_off_the_command_lines(tmp_path):
    start(tmp_path, "0 0 0", "0 0 0")
    lines = (tmp_path / "lines").read_text()
    assert lines.count("export OMP_NUM_THREADS=3;") == 3
    assert "hf_secret" not in lines

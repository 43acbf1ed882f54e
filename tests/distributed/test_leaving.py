"""A rank leaves once nothing is on its way: a gather that ended later would abort it, after all its work was done."""

import subprocess

import launch
import pytest


@pytest.mark.parametrize("how, aborts", [("stop", False), ("destroy", True)])
def test_no_rank_leaves_with_a_gather_on_its_way(how, aborts):
    line = launch.launched(2, "tests/distributed/leaving.py", how)
    done = subprocess.run(
        line,
        cwd=launch.ROOT,
        env=launch.ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=200,
    )
    assert (done.returncode != 0, "terminate called" in done.stdout) == (aborts, aborts), done.stdout[-3000:]

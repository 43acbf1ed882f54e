"""A rank leaves once nothing is on its way: a gather that ended later would abort it, after all its work was done."""

import subprocess
import sys

import launch
import pytest
from forked import worlds
from places import ROOT

ABORTS = {"stop": False, "destroy": True}
"""How ranks leave -> whether one of them is aborted."""


@pytest.fixture(scope="module")
def left():
    """How ranks leave -> (exit codes, what they said). Interpreters of their own, whose end is what is shown; all at once, as
    they wait for most of their time."""
    started = {}
    for how in ABORTS:
        line = [sys.executable, str(ROOT / "tests" / "distributed" / "leaving.py"), how]
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        places = worlds(2, launch.free_port())
        started[how] = [subprocess.Popen(line, cwd=ROOT, env=launch.ENVIRONMENT | place, **pipes) for place in places]
    said = {how: [process.communicate(timeout=400)[0] for process in ranks] for how, ranks in started.items()}
    return {how: ([process.returncode for process in started[how]], "".join(said[how])) for how in ABORTS}


@pytest.mark.parametrize("how", ABORTS)
def test_no_rank_leaves_with_a_gather_on_its_way(how, left):
    codes, said = left[how]
    assert (any(codes), "terminate called" in said) == (ABORTS[how], ABORTS[how]), said[-3000:]

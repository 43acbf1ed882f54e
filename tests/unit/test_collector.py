"""The search for unreachable objects rests from a command's start until its model is there, and no longer."""

import subprocess
import sys

from places import ROOT

PROGRAM = """
import gc, sys
from svco.basics import collector
assert "torch" not in sys.modules
with collector.resting():
    assert not gc.isenabled()
    collector.go_on()
    assert gc.isenabled() and gc.get_freeze_count() > 1000
gc.unfreeze()
try:
    with collector.resting():
        assert not gc.isenabled()
        raise LookupError
except LookupError:
    assert gc.isenabled()
collector.go_on()
sys.modules["torch"] = None  # a process that has done its imports, such as a notebook's
with collector.resting():
    assert gc.isenabled()
    collector.go_on()
gc.disable()  # its owner's wish
with collector.resting():
    collector.go_on()
assert not gc.isenabled() and gc.get_freeze_count() == 0
"""


def test_the_search_rests_until_the_model_is_there():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

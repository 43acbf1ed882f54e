"""The fuzzers' quick form: what broke once, and a few drawn files at each entrance. The hour's form is make fuzz."""

import subprocess
import sys

from places import ROOT

FUZZ = ROOT / "tests" / "fuzz" / "run.py"


def test_no_damaged_file_breaks_an_entrance(tmp_path):
    words = ["--together", "--inputs", "50", "--seed", "7", "--finds", str(tmp_path)]
    done = subprocess.run([sys.executable, str(FUZZ), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" inputs in ") == 10
    assert "0 finds" in done.stdout


def test_what_breaks_is_found(tmp_path):
    """The control: an entrance that lets an error out, and one that changes something without a word."""
    script = """
import sys
sys.path[:0] = sys.argv[2:]
import run, targets
kind = targets.Records
def check(self, data):
    if data == self.seeds[0]: return
    if len(data) % 2: raise KeyError("let out")
    assert False, "changed"
kind.check = check
found = run.one_target("records", 1, 40, 0, run.Path(sys.argv[1]))
print(len(found["finds"]), found["inputs"])
"""
    places = [str(tmp_path), str(FUZZ.parent), str(ROOT / "tests"), str(ROOT)]
    done = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, text=True)
    assert done.stdout == "2 40\n", done.stderr
    assert len(list((tmp_path / "records").glob("*.txt"))) == 2

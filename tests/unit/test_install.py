"""The CUDA constraints rest on the tested ones, and every recipe and script of the install page is there."""

import re
import subprocess

import launch
from places import ROOT

INSTALL = ROOT / "launchers" / "install"


def pins(path):
    return dict(line.split("==") for line in path.read_text().split() if "==" in line)


def test_cuda_constraints_rest_on_the_tested_versions():
    text = (INSTALL / "constraints-cuda.txt").read_text()
    tested = pins(ROOT / "constraints.txt")
    assert re.search(r"^-c \.\./\.\./constraints\.txt$", text, re.M)
    assert f"torch {tested['torch']}'s own" in text, "the CUDA packages belong to that torch"
    assert not pins(INSTALL / "constraints-cuda.txt").keys() & tested.keys(), "one pin a package"
    assert (
        f"version={pins(INSTALL / 'constraints-cuda.txt')['flash-attn']}"
        in (INSTALL / "flash_attn_wheel.sh").read_text()
    )


def test_the_next_constraints_differ_in_torch_and_transformers_alone():
    tested, following = (pins(ROOT / name) for name in ("constraints.txt", "constraints-next.txt"))
    assert {name for name, _ in tested.items() ^ following.items()} == {"torch", "transformers"}


def test_what_is_carried_to_a_gpu_has_a_pin():
    script = (INSTALL / "gpu_box.sh").read_text()
    carried = re.search(r"^packages=\((.+)\)$", script, re.M).group(1).split()
    assert set(carried) <= pins(ROOT / "constraints.txt").keys()
    done = subprocess.run(
        ["shellcheck", INSTALL / "gpu_box.sh"], env=launch.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_image_takes_nothing_that_git_ignores():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {f"**/{pattern}" for pattern in ignored} <= set(
        (INSTALL / "Dockerfile.dockerignore").read_text().splitlines()
    )

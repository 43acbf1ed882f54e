"""data_shards/WALK.md: its commands, from photographs to a trained adapter, as they stand on the page."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from browser import browser, pixels
from launch import ENVIRONMENT, free_port, metrics
from places import ROOT

from svco.data.shards import ShardSet

PAGE = (ROOT / "data_shards" / "WALK.md").read_text()
for package, name in (
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("openai", "openai"),
    ("uvicorn", "uvicorn"),
):
    pytest.importorskip(package, reason=f"NOT TESTED: needs {name}: pip install 'svco[test]'")
if not shutil.which("curl"):
    pytest.skip("NOT TESTED: needs curl: apt-get install curl", allow_module_level=True)
pytestmark = pytest.mark.slow


def blocks():
    """The page's commands, block by block, but for the installation."""
    found = [
        "".join(line[4:] for line in block.splitlines(True)) for block in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.M)
    ]
    return [block for block in found if not block.startswith("pip ")]


def play(block, place):
    """Runs ``block`` in a shell, as a reader does; what it prints."""
    shell = subprocess.Popen(
        ["bash", "-e", "-o", "pipefail", "-c", block],
        cwd=place,
        env=ENVIRONMENT | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, f"{block}\n{said[-5000:]}"
    return said


def look(place):
    """Looks at the gallery, rejects the cup that became a rocket, and saves that where the page says."""
    made = place / "runs" / "walk"
    with browser(made) as driver:
        driver.get(f"file://{made}/gallery/index.html")
        assert driver.find_element("id", "count").text.startswith("25 "), "as many as the filter kept"
        shot = driver.get_screenshot_as_png()
        (made / "gallery.png").write_bytes(shot)
        assert pixels(shot).std() > 20, "something is drawn"
        script = "const card = document.querySelector('.pair[data-place=\"24\"]'); if (card) card.scrollIntoView(); return card"
        driver.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
        time.sleep(0.5)
        card = driver.execute_script(script)
        assert "rocket" in card.text and "cup" in card.text
        card.find_element("css selector", "button[data-choice=reject]").click()
        driver.find_element("id", "save").click()
        deadline = time.monotonic() + 10
        while not (made / "choices.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """(folder, what every block printed)."""
    place, said = tmp_path_factory.mktemp("walk"), []
    for name in ("launchers", "data_shards", "ds_configs"):
        (place / name).symlink_to(ROOT / name)
    port = str(free_port())
    for block in blocks():
        said.append(play(block.replace("8000", port), place))
        if "data view" in block:
            look(place)
    return place / "runs" / "walk", "\n".join(said)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_the_page_says_of_the_pairs(walked):
    made, said = walked
    kept, rejected = (lines(made / "filtered" / f"{name}.jsonl") for name in ("records", "rejected"))
    assert (len(kept), len(kept) + len(rejected)) == tuple(map(int, re.search(r"keeps (\d+) of (\d+)", PAGE).groups()))
    by_kind = {line["ids"]["name"].partition("-")[2]: line for line in kept + rejected}
    assert all(line["stages"]["filter"]["verdict"] == "kept: mirrored" for line in kept if line["kind"] == "mirror")
    assert by_kind["chelsea-failed"] in rejected and by_kind["coffee-other-picture"] in kept
    assert round(by_kind["chelsea-failed"]["scores"]["clip"], 2) == 1.0
    assert "0 of 25 pairs rewritten" in said and "no pair passed" in said, "through the server"
    answers = [answer for line in lines(made / "asked.rejected.jsonl") for answer in line["said"]]
    assert len(answers) == 50 and all(line["reasons"] for line in lines(made / "asked.rejected.jsonl"))


def test_whole_photographs_are_held_out_and_licences_arrive(walked):
    made, said = walked
    assert "1 rejected" in said and "all is well" in said
    photographs, pairs = {}, 0
    for split in ("train", "val", "heldout"):
        shards = ShardSet.open([str(made / "shards" / f"{split}-*.tar")])
        texts = [shards.read(number).text for number in range(len(shards))]
        photographs[split] = {text.ids["name"].split("-")[1] for text in texts}
        pairs += len(texts)
        assert all("template" in json.dumps(text.facts["provenance"]) for text in texts)
    assert pairs == 24 and photographs["train"], "25 but for the one that was rejected"
    assert not photographs["train"] & photographs["heldout"] and not photographs["train"] & photographs["val"]
    licences = json.loads((made / "shards" / "MANIFEST.json").read_text())["licences"]
    assert sum(licences.values()) == 24 and any(name.startswith("CC BY 2.0") for name in licences)


def test_twenty_steps(walked):
    made, _ = walked
    steps = [line for line in metrics(made / "trained") if "loss" in line]
    assert steps[-1]["step"] == 20 and all(math.isfinite(line["loss"]) for line in steps)
    assert (made / "trained" / "adapter" / "adapter_model.safetensors").exists()

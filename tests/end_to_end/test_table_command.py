"""`svco table` as people run it: stopped and gone on with, judged through an endpoint on loopback, and its page in a browser."""

import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import make_mmvp, make_pope
from browser import browser, pixels
from endpoint_server import KEY, Server
from judged import make_mmhal
from launch import ENVIRONMENT
from oracle import make_adapter
from places import BASE

from svco import cli


def rated(body):
    """A rating that depends on what is judged, and on nothing else."""
    return f"Rating: {sum(map(ord, str(body))) % 7}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with three benchmarks and a run, and ``table(...)`` of them in it."""
    pytest.importorskip("openai", reason="NOT TESTED: needs openai: pip install 'svco[endpoint]'")
    folder = tmp_path_factory.mktemp("table")
    make_mmvp(folder / "benchmarks" / "mmvp", 2)
    make_mmhal(folder / "benchmarks" / "mmhal", 4)
    make_pope(folder / "benchmarks" / "pope")
    make_adapter(BASE, folder / "runs" / "tuned" / "adapter")
    words = ["table", "--base", str(BASE), "--run", "runs/tuned", "--benchmarks", "benchmarks", "-o", "out"]

    def table(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["svco", *words, *more])
            patch.setenv("OPENAI_BASE_URL", server.address)
            patch.setenv("OPENAI_API_KEY", KEY)
            with pytest.raises(SystemExit) as done:
                cli.main()
        return done.value.code

    with Server(rated) as server:
        yield SimpleNamespace(folder=folder, words=words, table=table, server=server)


def evaluations(place, name):
    return sorted(place.folder.glob(f"out/evaluations/{name}-*/*/eval.json"))


def told(place):
    return json.loads((place.folder / "out" / "table.json").read_text())


def test_it_goes_on_where_it_was_stopped(place, capfd):
    line = [sys.executable, "-m", "svco", *place.words]
    process = subprocess.Popen(line, cwd=place.folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not evaluations(place, "BASE"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 75 and "the same command goes on" in said
    assert any(row["figures"]["MMVP"].get("gap") for row in told(place)["rows"]), "the page tells what is missing"
    first = evaluations(place, "BASE")[0]
    before = first.stat().st_mtime_ns
    # What the run was when it was evaluated before.
    shutil.copytree(first.parent, place.folder / "out" / "evaluations" / "tuned-0123456789" / "mmvp")
    assert place.table() == 0
    said = capfd.readouterr().out
    assert "runs/tuned has other weights" in said and "evaluated anew" in said
    assert first.stat().st_mtime_ns == before and len(evaluations(place, "BASE")) == 3
    assert len(evaluations(place, "tuned")) == 4
    assert place.table() == 0 and "evaluating" not in capfd.readouterr().out, "all of it is there"


def test_the_judges_price_is_told_then_figures_have_their_source(place, capfd):
    assert place.table("--judge", "gpt-4o") == 2
    said = capfd.readouterr()
    assert "$" in said.out and "Add --yes" in said.err and not place.server.bodies
    assert place.table("--judge", "gpt-4o", "--judgements", "2", "--yes") == 0
    found = told(place)
    base, run = found["rows"]
    for row in (base, run):
        rating = row["figures"]["MMHal score"]
        folder = place.folder / rating["source"]["evaluation"]
        part = json.loads((folder / "eval.json").read_text())
        assert (
            rating["value"] == part["benchmarks"]["mmhal"]["score"] and part["identity"] == rating["source"]["identity"]
        )
        assert rating["source"]["judge"]["answered"] == ["gpt-4o-as-served"] and rating["source"]["judge"]["cost"] > 0
    assert "against_base" in run["figures"]["MMVP"] and run["total"]["over"]
    assert found["paper"][0]["rows"][-1]["total"] == 14.26


@pytest.mark.parametrize("dark", [False, True])
def test_the_page(place, dark):
    page = place.folder / "out" / "index.html"
    assert page.exists(), "made by the tests above"
    with browser(place.folder, dark=dark) as driver:
        for width in (1500, 480):
            driver.set_window_size(width, 1000)
            driver.get(f"file://{page}")
            look(driver, width, dark, place.folder / f"table-{width}-{'dark' if dark else 'light'}.png")


def look(driver, width, dark, file):
    errors = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    assert not errors, errors
    seen = driver.find_element("tag name", "body").text
    for word in (
        "MMHal score",
        "BASE",
        "tuned",
        "The paper's, LLaVA-1.5-7B",
        "14.26",
        "What is not there",
        "Beyond the paper's columns",
        "POPE, F1",
        "gpt-4o-as-served",
    ):
        assert word in seen, word
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert driver.execute_script(wide), "the table scrolls by itself, not the page with it"
    shot = driver.get_screenshot_as_png()
    file.write_bytes(shot)
    brightness = np.median(pixels(shot))
    assert (brightness < 60) if dark else (brightness > 200)
    script = "const frame = document.querySelector('.wide'); frame.scrollLeft = 400;"
    script += "return [frame.scrollLeft, document.querySelector('tr.run th').getBoundingClientRect().left]"
    moved, left = driver.execute_script(script)
    assert left >= 0 and (moved > 0 or width > 480), "the names of the rows stay in sight"

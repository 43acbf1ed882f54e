"""`svco report` of the demo's run: its figures are the run's, and the page looks as it should on every screen."""

import json
import re
import shutil
import sys

import pytest
from browser import each_look, faults, whole
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svco import cli
from svco.scores.before_after import metrics
from svco.scores.kept import KeptScores


@pytest.fixture(scope="module")
def page(demo, tmp_path_factory):
    """The page of the demo's run beside a copy that stopped half-way: (file, its text)."""
    folder = tmp_path_factory.mktemp("report")
    other = shutil.copytree(
        demo[0], folder / "half", ignore=shutil.ignore_patterns("heldout*", "adapter", "samples.png")
    )
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]))
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace("lr: 0.002", "lr: 0.02"))
    words = ["report", demo[0], other, "--tokens", 2, "--examples", 3, "-o", folder / "page.html"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["svco", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
    assert done.value.code == 0
    return folder / "page.html", (folder / "page.html").read_text()


def test_what_a_run_keeps_of_its_pairs_is_what_it_tells(demo):
    summary, kept = json.loads((demo[0] / "heldout.json").read_text()), KeptScores.load(demo[0])
    assert metrics(kept.before, kept.tokens) == pytest.approx(summary["before"])
    assert metrics(kept.after, kept.tokens) == pytest.approx(summary["after"])
    assert len(set(kept.key.tolist())) == summary["pairs"]


def test_tensorboard_has_the_pairs_and_once_the_recipe(demo):
    events = EventAccumulator(str(demo[0] / "tensorboard")).Reload()
    assert {"samples", *(f"pairs/{n}" for n in range(6))} == set(events.Tags()["images"])
    found = [data.plugin_data for data in events.summary_metadata.values() if data.plugin_data.plugin_name == "hparams"]
    assert len(found) == 3 and any(b"objective.beta" in one.content for one in found)
    summary = json.loads((demo[0] / "heldout.json").read_text())
    assert events.Scalars("heldout/pair_accuracy")[0].value == pytest.approx(summary["after"]["pair_accuracy"])


def test_the_figures_are_the_run_s(demo, page):
    file, text = page
    summary = json.loads((demo[0] / "heldout.json").read_text())
    for when in ("before", "after"):
        assert f"<td>{100 * summary[when]['pair_accuracy']:.1f}% ± " in text
    assert "half token by token: it has no weights yet" in text
    differing = text.partition("What differs between their recipes")[2].partition("</table>")[0]
    assert re.findall(r"<td>([\w.]+) ≠</td>", differing) == ["optim.lr"] and ">0.02<" in differing
    assert text.count('class="pair example"') == 3 and text.count('<p class="response"') == 2 * 2 * 2
    assert "http:" not in text and str(demo[0].parent) not in text.partition('id="recipe"')[0]
    assert file.stat().st_size < 4_000_000


def test_the_page_on_every_screen(page):
    file, _ = page
    shots = {}
    with each_look(file.parent, file) as looks:
        for driver, name in looks:
            assert not faults(driver), name
            shots[name] = whole(driver)
            (file.parent / f"report-{name}.png").write_bytes(shots[name])
        driver.execute_script("document.querySelector('details').open = true")
        assert not faults(driver)
        assert not [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        # That the check can fail.
        spoilt = "section h2 { margin: 0 0 -1.4rem } .facts { position: relative; width: 3000px } p { color: #444 }"
        spoilt += ".scroll { overflow: visible } .panel svg { height: 40px; overflow: visible }"
        driver.execute_script(
            "document.head.append(Object.assign(document.createElement('style'), {textContent: arguments[0]}))", spoilt
        )
        found = " ".join(faults(driver))
        for fault in ("scrolls sideways", "over each other", "contrast"):
            assert fault in found
    assert len(set(shots.values())) == 4

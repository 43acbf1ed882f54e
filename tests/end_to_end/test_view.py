"""`svco data view` in a browser: what is seen, filtered, chosen and saved, and what `build --exclude` makes of it."""

import json
import shutil
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from browser import browser, pixels

from svco import cli
from svco.data.shards import ShardSet, write_shards

PAIRS, SHOWN = 11_000, 60
EVIL = "</script><img src=x onerror='window.broken = 1'> \u2028 ${x} `"


@pytest.fixture(scope="module")
def svco():
    def run(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["svco", "data", *map(str, words)])
            with pytest.raises(SystemExit) as done:
                cli.main()
        return done.value.code

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory, svco):
    """A gallery of 11,000 pairs, the release's number, of 60 pairs' pictures; the first three are odd."""
    from svco.tiny_world.contrast import world_pairs

    folder = tmp_path_factory.mktemp("view")
    (folder / "i").mkdir()
    pairs = list(world_pairs("gate", 0, SHOWN))
    for number, pair in enumerate(pairs):
        for side in (0, 1):
            (folder / "i" / f"{number}.{side}.jpg").write_bytes(pair.images[side])
    lines = []
    for number in range(PAIRS):
        text = pairs[number % SHOWN].text
        lines.append(
            {
                "images": [f"{number % SHOWN}.{side}.jpg" for side in (0, 1)],
                "query": f"{text.query} ({number})",
                "responses": list(text.responses),
                "type": text.contrast,
                "source": ["one", "two"][number % 2],
                "scores": {"clip": number / PAIRS},
            }
        )
    lines[0]["query"] = lines[0]["responses"][0] = EVIL
    shutil.copyfile(folder / "i" / "5.0.jpg", folder / "i" / "5.again.jpg")
    lines[1]["images"] = ["5.0.jpg", "5.again.jpg"]
    lines[2]["images"] = ["5.0.jpg", "nowhere.jpg"]
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert svco("view", folder / "r.jsonl", "--images", folder / "i", "-o", folder / "gallery") == 0
    return SimpleNamespace(folder=folder, lines=lines, page=f"file://{folder}/gallery/index.html")


def test_a_gallery_is_small_pictures_once_and_texts_in_pieces(place):
    gallery = place.folder / "gallery"
    assert len(list(gallery.glob("images/*/*.jpg"))) == 2 * SHOWN, "one file for each picture however often it is shown"
    assert len(list(gallery.glob("pairs/*.js"))) == 22
    assert not list(gallery.rglob(".*")), "nothing half-written is left"


@pytest.fixture(scope="module")
def seen(place):
    with browser(place.folder) as driver:
        driver.get(place.page)

        def count():
            time.sleep(0.4)  # the search waits for its next letter
            return driver.find_element("id", "count").text.partition(" ")[0]

        def put(name, value):
            script = "const f = document.querySelector(arguments[0]); f.value = arguments[1];"
            script += "f.dispatchEvent(new Event('input', {bubbles: true}))"
            driver.execute_script(script, f"#filters {name}", value)

        def card(number):
            """The card of a pair that is drawn, in the middle of the window."""
            script = "const card = document.querySelector(`.pair[data-place='${arguments[0]}']`);"
            return driver.execute_script(
                script + "if (card) card.scrollIntoView({block: 'center'}); return card", number
            )

        yield SimpleNamespace(driver=driver, count=count, put=put, card=card)


def test_eleven_thousand_pairs_scroll_and_only_what_is_near_is_drawn(place, seen):
    drawn = "return document.querySelectorAll('.pair').length"
    assert seen.count() == "11,000"
    assert 0 < seen.driver.execute_script(drawn) <= 120
    tall = seen.driver.execute_script("return document.documentElement.scrollHeight")
    assert tall > 1_000_000
    before = time.monotonic()
    for share in (0.25, 0.5, 0.75, 1):
        seen.driver.execute_script("scrollTo(0, arguments[0] * document.documentElement.scrollHeight)", share)
        time.sleep(0.3)
        assert 0 < seen.driver.execute_script(drawn) <= 120
    assert seen.card(PAIRS - 1) is not None, "the last is there"
    assert time.monotonic() - before < 20
    seen.driver.execute_script("scrollTo(0, 0)")
    time.sleep(0.3)
    assert seen.driver.execute_script("return document.querySelector('.query').textContent") == EVIL
    assert (
        seen.driver.execute_script(
            "return window.broken === undefined && document.querySelectorAll('img[src=x]').length"
        )
        == 0
    )
    errors = [line["message"] for line in seen.driver.get_log("browser") if line["level"] == "SEVERE"]
    assert not errors, errors


def test_what_is_seen_of_a_pair(place, seen):
    driver = seen.driver
    seen.put("[name=search]", "")
    assert seen.count() == "11,000"
    shot = driver.get_screenshot_as_png()
    (place.folder / "screenshot.png").write_bytes(shot)
    assert pixels(shot).std() > 20, "something is drawn"
    card = seen.card(3)
    marks = [mark.text for mark in card.find_elements("css selector", "mark")]
    first, second = place.lines[3]["responses"]
    assert marks and all(mark in first or mark in second for mark in marks) and first.split()[0] not in marks
    frames = card.find_elements("css selector", ".frame")
    time.sleep(0.5)  # pictures are loaded as they are seen

    def slide(at):
        script = (
            "const r = arguments[0].querySelector('input'); r.value = arguments[1]; r.dispatchEvent(new Event('input'))"
        )
        driver.execute_script(script, card, at)
        return pixels(frames[2].screenshot_as_png)

    sides = [pixels(frame.screenshot_as_png) for frame in frames[:2]]
    size = np.minimum(sides[0].shape, frames[2] and slide(0).shape)[:2]

    def apart(a, b):
        return np.abs(a[: size[0], 4 : size[1] - 4] - b[: size[0], 4 : size[1] - 4]).mean()

    other = apart(*sides)
    assert other > 1
    assert apart(slide(0), sides[1]) < other / 4 < apart(slide(0), sides[0])
    assert apart(slide(100), sides[0]) < other / 4 < apart(slide(100), sides[1])
    driver.find_element("tag name", "body").send_keys("d")
    assert 1 < pixels(frames[2].screenshot_as_png).mean() < sides[0].mean() / 2, "black but for what differs"
    same = seen.card(1).find_element("css selector", ".stack")
    time.sleep(0.3)
    assert pixels(same.screenshot_as_png)[4:-4, 4:-4].max() <= 2, "equal pictures have no difference"
    driver.find_element("tag name", "body").send_keys("d")
    assert "No such file" in seen.card(2).find_element("css selector", ".missing").text


def test_filters_search_keys_and_a_saved_choice_that_build_takes(place, seen, svco, capsys):
    driver = seen.driver
    kinds = {kind: sum(line["type"] == kind for line in place.lines) for kind in ("object", "position")}
    seen.put("[name=type]", "object")
    assert seen.count() == f"{kinds['object']:,}"
    seen.put("[name=source]", "one")
    both = [line for line in place.lines if line["type"] == "object" and line["source"] == "one"]
    assert seen.count() == f"{len(both):,}"
    seen.put("[data-bound=least]", 0.9)
    assert seen.count() == f"{sum(line['scores']['clip'] >= 0.9 for line in both):,}"
    for name in ("[name=type]", "[name=source]", "[data-bound=least]"):
        seen.put(name, "")
    seen.put("[name=order]", "-clip")
    assert seen.count() == "11,000"
    assert driver.execute_script("return document.querySelector('.query').textContent").endswith(f"({PAIRS - 1})")
    seen.put("[name=order]", "")
    seen.put("[name=search]", "(77")
    wanted = [n for n, line in enumerate(place.lines) if "(77" in line["query"]]
    assert seen.count() == str(len(wanted))
    body = driver.find_element("tag name", "body")
    body.send_keys("j")  # to the first
    driver.switch_to.active_element.send_keys("r")
    driver.switch_to.active_element.send_keys("j")
    driver.switch_to.active_element.send_keys("a")
    third = seen.card(2)
    third.find_element("css selector", "button[data-choice=reject]").click()
    assert third.get_attribute("data-choice") == "reject"
    assert "1 accepted, 2 rejected" in driver.find_element("id", "count").text
    driver.get(place.page)
    assert "1 accepted, 2 rejected" in driver.find_element("id", "count").text, "they outlive the page"
    seen.put("[name=choice]", "reject")
    assert seen.count() == "2"
    driver.find_element("id", "save").click()
    saved = place.folder / "choices.json"
    deadline = time.monotonic() + 10
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(json.loads(saved.read_text())["choices"].values()) == ["accept", "reject", "reject"]
    driver.execute_script("localStorage.clear()")
    driver.get(place.page)
    assert "0 rejected" in driver.find_element("id", "count").text
    driver.find_element("id", "load").send_keys(str(saved))
    time.sleep(0.5)
    assert "1 accepted, 2 rejected" in driver.find_element("id", "count").text

    few = place.folder / "few.jsonl"
    few.write_text("\n".join(json.dumps(place.lines[n]) for n in [*range(10, 15), *wanted[:3]]))
    build = ("build", few, "--images", place.folder / "i", "--val", 0, "--heldout", 0, "-o")
    assert svco(*build, place.folder / "shards", "--exclude", saved) == 0
    assert "2 rejected" in capsys.readouterr().out
    shards = ShardSet.open(str(place.folder / "shards"))
    asked = {shards.read(n).text.query for n in range(len(shards))}
    assert asked == {place.lines[n]["query"] for n in [*range(10, 15), wanted[1]]}
    few.write_text(json.dumps(place.lines[10]))
    assert svco(*build, place.folder / "none", "--exclude", saved) == 2
    assert "about other records" in " ".join(capsys.readouterr().err.split())
    assert svco(*build, place.folder / "none", "--exclude", few) == 2


def test_narrow_and_dark_rejects_and_shards(place, svco, make_pairs):
    rejects, shards = place.folder / "x.rejected.jsonl", place.folder / "s"
    told = [{"reasons": ["leak: the question says 'red'"], "said": [], "record": line} for line in place.lines[3:6]]
    rejects.write_text("\n".join(map(json.dumps, told)))
    write_shards(make_pairs("train", 0, 5), shards, "train", 5)
    assert svco("view", rejects, "--images", place.folder / "i", "-o", place.folder / "rejects") == 0
    assert svco("view", shards, "-o", place.folder / "of-shards") == 0
    assert svco("view", shards, "-o", place.folder / "i") == 2, "a folder with something else in it is left alone"
    with browser(place.folder, 500, 900, dark=True) as driver:
        driver.get(f"file://{place.folder}/rejects/index.html")
        assert "leak: the question says 'red'" in driver.find_element("css selector", ".reasons").text
        assert driver.find_elements("css selector", "select[name=reason] option[value=leak]")
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        driver.get(f"file://{place.folder}/of-shards/index.html")
        assert driver.find_element("id", "count").text == "5 of 5 pairs", "shards are for looking: nothing to choose"
        assert not driver.find_elements("css selector", "button")

"""`svco report` on what no run should leave behind: whatever a folder holds, a page or a sentence, and nothing foreign in it."""

import json
import math
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svco import cli
from svco.basics.errors import UserError
from svco.commands.report import runs, series
from svco.commands.report.charts import panels
from svco.commands.report.tables import cell
from svco.recipe.config import Config, DataConfig
from svco.recipe.read import dump
from svco.record.board import Board
from svco.record.state import Heartbeat, RunState
from svco.scores.kept import KeptScores
from svco.scores.statistics import Estimate

EVIL = "</script><img src=x onerror='x()'> & \" {{ 7 * 7 }} \u2028"
SECRET = "sekrit9Zq"


def report(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["svco", "report", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
    return done.value.code


class Page(HTMLParser):
    """A page, well formed and needing nothing outside itself."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids = [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert not {"script", "link", "iframe", "base"} & set(self.tags)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        assert all(values[n].startswith(("data:image/", "#")) for n in ("src", "href") if n in values)
        self.ids += [values["id"]] if "id" in values and tag == "path" else []
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "url(" not in data and "@import" not in data
        else:
            self.text += data


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run's folder as rank 0 leaves it after some steps, with odd names in it."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    folder.mkdir()
    with Heartbeat(folder, True, 2, ("svco", "train"), 30.0) as heart:
        heart.tell(doing="training", step=3, steps=9, reason=f"asked to stop {EVIL}")
    board = Board(folder, enabled=True)
    for step in range(1, 7):
        values = {f"delta/{s}_{v}": step / (s + 1) for s in (0, 1) for v in ("match", "blind", "clash")}
        values |= {"loss": 1 / step, "loss/attend_0": 0.1, EVIL: 2.0, "bad/bad-json": 2, "skipped": 1, "lr": 1e-3}
        board.write(step, values | {"seconds/lap": 2.0, "seconds/forward": 1.5, "memory_peak_bytes": 3e9})
    board.write(6, {"validation/match_minus_blind": 1.0, "validation/pair_accuracy": 0.5, "loss/nan": math.nan})
    address = f"https://me:{SECRET}@host/h-{{000..001}}.tar?token={SECRET}"
    config = Config(data=DataConfig(heldout=(address,)))
    (folder / "recipe.yaml").write_text(dump(config).replace("***", SECRET))
    made_with = {"api_key": SECRET, "versions": {"svco": address}, "base": {"name": address}, "started": EVIL}
    (folder / "versions.json").write_text(json.dumps(made_with))
    bad = {"step": 2, "pairs": [{"key": EVIL, "terms": {"loss": "nan"}}, {"terms": 7}, None]}
    (folder / "bad_steps.jsonl").write_text(json.dumps(bad) + "\n")
    logps = np.random.default_rng(0).normal(-5, 1, (2, 9, 2, 3))
    kinds = np.array(["object"] * 5 + [EVIL] * 4)
    keys = np.array([f"{EVIL}{n}" for n in range(9)])
    KeptScores(np.arange(9), keys, kinds, logps[0], logps[1], np.full((9, 2), 4)).save(folder)
    measure = {"value": 0.5, "se": 0.1, "low": 0.3, "high": 0.7}
    evaluation = {"model": {"name": EVIL}, "sets": {EVIL: {"pair_accuracy": measure, "pairs": 3}}, "benchmarks": {}}
    (folder / "eval").mkdir()
    (folder / "eval" / "eval.json").write_text(json.dumps(evaluation))
    return folder


def test_a_page_shows_text_as_text_and_no_secret(one, tmp_path):
    assert report(one, "-o", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert SECRET not in text
    told = " ".join(page.text.split())
    words = " ".join(EVIL.split())
    for part in (
        f"asked to stop {words[:40]}",
        "2 bad-json",
        f"{words} (loss nan)",
        "3.00 GB",
        "50.0% ± 10.0 [30.0, 70.0]",
    ):
        assert part in told, part
    assert "are elsewhere, and nothing is fetched" in told
    titles = re.findall(r"<h3>([^<]*)</h3>", text)
    assert {"Loss", "Δ of each cell", "The two gaps while training", "The two gaps on validation pairs"} <= set(titles)
    assert page.tags.count("svg") >= 8
    assert "not finite" in told, "a NaN is told, not hidden"


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "garbage": lambda data: bytes(range(256)) * 4,
    "empty": lambda data: b"",
    "a list": lambda data: b"[1, 2]\n",
    "deep": lambda data: b"[" * 100_000 + b"\n",
    "other types": lambda data: (
        b'{"step": "x", "pairs": {"a": 1}, "before": 3, "versions": [], "base": "b", "sets": 5}\n'
    ),
    "huge": lambda data: (
        b'{"step": 1, "loss": 1' + b"0" * 400 + b', "lr": 1e308, "x": true, "y": "z", "seconds/lap": -1}\n'
    ),
    "folder": None,
}
FILES = (
    "state.json",
    "recipe.yaml",
    "metrics.jsonl",
    "versions.json",
    "heldout.json",
    "heldout.npz",
    "bad_steps.jsonl",
    "eval/eval.json",
    "samples.png",
)


def damaged(folder, name, how):
    file = folder / name
    data = file.read_bytes() if file.exists() else b'{"pairs": 1, "before": {}}'
    file.unlink(missing_ok=True)
    if DAMAGE[how] is None:
        file.mkdir()
    else:
        file.write_bytes(DAMAGE[how](data))


def test_damage_to_any_file_is_told_and_the_page_is_made(one, tmp_path):
    """One file of each run damaged; then all files of each, in one way a run."""
    for number, name in enumerate(FILES):
        damaged(shutil.copytree(one, tmp_path / "one" / f"r{number}"), name, "garbage")
    assert report(tmp_path / "one", "-o", tmp_path / "page.html", "--examples", 2) == 0
    page = Page((tmp_path / "page.html").read_text())
    for number, name in enumerate(FILES[:-2]):
        assert re.search(rf"r{number}: {re.escape(name)}", page.text), name
    for how in DAMAGE:
        copy = shutil.copytree(one, tmp_path / "all" / how)
        for name in FILES:
            damaged(copy, name, how)
    assert report(tmp_path / "all", "-o", tmp_path / "page.html", "--examples", 2) == 0
    page = Page((tmp_path / "page.html").read_text())
    for how in ("garbage", "a list", "folder", "deep"):
        for name in FILES[:4]:
            assert re.search(rf"{how}: {re.escape(name)}", page.text), (how, name)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 30).map(lambda step: json.dumps({"step": step, "loss": step})),
            st.sampled_from(
                ["", "{", "[]", "null", '{"step": true}', '{"step": -1}', '{"step": 3, "loss": null}', "NaN"]
            ),
        )
    )
)
def test_any_lines_make_a_log_in_order(lines):
    """Steps rise, and the last word on a step is what counts: whoever resumes behind others voids them."""
    run = runs.Run(None, "run")
    log = runs._in_order(runs._numbers(line) for line in runs._lines(run, "\n".join([*lines, ""])))
    steps = [record["step"] for record in log]
    assert steps == sorted(set(steps))
    told = [
        json.loads(line) for line in lines if line.startswith('{"step": ') and "true" not in line and "-" not in line
    ]
    if told:
        assert steps[-1] == told[-1]["step"]
        kept = [line["step"] for n, line in enumerate(told) if all(later["step"] >= line["step"] for later in told[n:])]
        assert steps == sorted(set(kept))
    lost = sum(bool(line.strip()) for line in lines) - len(told)
    assert bool(run.problems) == bool(lost)


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(math.nan)), min_size=1, max_size=3000), st.integers(0, 2**31))
@settings(max_examples=30)
def test_thinning_hides_no_extreme_and_no_gap(values, place):
    values = np.array(values)
    values[place % len(values)] = 100
    x, y = series.thinned(np.arange(len(values), dtype=float), values)
    assert len(x) <= series.MOST_POINTS and (np.diff(x) > 0).all()
    assert np.nanmax(y) == 100 and np.nanmin(y) == np.nanmin(values)
    assert np.isnan(y).any() == np.isnan(values).any()


def test_every_number_of_a_log_is_on_a_chart_once():
    log = [
        {"step": 1.0, "epoch": 0.0, "pairs": 3.0}
        | {
            name: 1.0
            for name in (
                "loss",
                "mine/a",
                "mine/b",
                "odd",
                "grad_norm_max",
                "grad_norm",
                "tokens_per_second",
                "validation/perplexity_match",
                "validation/new_accuracy",
                "seconds/lap",
                "seconds/x",
                "delta/0_corrupt",
                "accuracy/attend_0",
            )
        }
    ]
    keys = [line.key for chart in series.charts([log]) for line in chart.lines]
    assert sorted(keys) == sorted(log[0].keys() - {"step", "epoch", "pairs", "seconds/lap"})
    assert series.charts([[]]) == []


def test_no_picture_holds_another_ones_ids():
    """SVGs in one page share a name space: a clip path of one must not be another's."""
    logs = {"a": [{"step": float(n), "loss": n / 3, "odd": 5.0 - n} for n in range(5)]}
    found = [panel.svg for chart in series.charts(list(logs.values())) for panel in panels(chart, logs)]
    ids = [set(re.findall(r'id="([^"]*p[0-9a-f]{8,})"', svg)) for svg in found]
    assert len(found) == 2 and all(ids) and not ids[0] & ids[1]


def test_unfinished_empty_and_absent_runs(one, tmp_path, capsys):
    empty = tmp_path / "empty"
    with Heartbeat(_made(empty), True, 1, (), 30.0):
        assert report(empty, "-o", tmp_path / "page.html") == 0
        page = Page((tmp_path / "page.html").read_text())
        assert "running, starting" in page.text and "No step is logged yet" in page.text
    for words, said in {
        (tmp_path / "nowhere",): "There is no run in",
        (_made(tmp_path / "bare"),): "nor has a folder in it",
        (one, "-o", tmp_path): "is a folder",
        (one, "--evaluations", tmp_path): "it has no eval.json",
        (one, "-o", one / "state.json" / "page.html"): "cannot be made",
    }.items():
        capsys.readouterr()
        assert report(*words) == 2
        assert said in " ".join(capsys.readouterr().err.split()), words
    many = [shutil.copytree(one, tmp_path / "many" / str(n)) for n in range(13)]
    with pytest.raises(UserError, match="12 at most"):
        runs.find([tmp_path / "many"])
    assert [run.name for run in runs.read_all([many[0], one])] == ["0", "one"]
    base = shutil.copytree(one, tmp_path / "base")
    assert [run.name for run in runs.read_all([base])] == ["base (run)"]
    (tmp_path / "other").mkdir()
    twin = shutil.copytree(one, tmp_path / "other" / "one")
    assert [run.name for run in runs.read_all([twin, one])] == ["other/one", f"{one.parent.name}/one"]


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def test_watching_writes_until_the_run_ends(one, tmp_path, monkeypatch):
    """The page loads itself anew while the run goes on, and no longer when it is over."""
    folder, seen = shutil.copytree(one, tmp_path / "run"), []
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n')
    heart = Heartbeat(folder, True, 1, (), 30.0)
    heart.__enter__()

    def sleep(seconds):
        seen.append((tmp_path / "page.html").read_text())
        if len(seen) == 2:
            heart.__exit__(None, None, None)

    monkeypatch.setattr("svco.commands.report.command.time.sleep", sleep)
    assert report(folder, "--watch", 7, "-o", tmp_path / "page.html") == 0
    again = '<meta http-equiv="refresh" content="7">'
    assert [again in text for text in (*seen, (tmp_path / "page.html").read_text())] == [True, True, False]
    assert RunState.read(folder).state == "finished"


def test_how_figures_are_written():
    assert cell("pair_accuracy", Estimate(0.5, 0.1, 0.3, 0.7)) == "50.0% ± 10.0 [30.0, 70.0]"
    assert cell("pair_accuracy", Estimate(-0.5, 0.1, -0.7, 0.3), signed=True) == "−50.0 points ± 10.0 [−70.0, 30.0]"
    assert cell("perplexity_match", Estimate(1.5, math.nan, math.nan, math.nan)) == "1.500"
    assert cell("perplexity_match", Estimate(math.nan, 0, 0, 0)) == "not finite"

"""launchers/eval.py as people run it: files, figures, comparisons, several ranks, and mistakes."""

import json
import subprocess
import sys

import launch
import numpy as np
import pytest
from benchmarks import make_cv_bench, make_mmvp
from places import BASE, ROOT

from svco.commands.evaluation.against import Evaluation, paired
from svco.scores.before_after import metrics
from svco.scores.pair_scores import pair_right

SET = "heldout=data_shards/heldout-000000.tar"


@pytest.fixture
def evaluate(capsys):
    """Runs launchers/eval.py in this process: arguments -> (exit code, stderr with single spaces)."""

    def run(*arguments):
        code = launch.here("eval.py", "--base", BASE, "--workers", 0, *arguments)
        return code, " ".join(capsys.readouterr().err.split())

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, three workers' worth of everything: a set with answers and a corrupt view, both benchmarks."""
    folder = tmp_path_factory.mktemp("eval")
    make_mmvp(folder / "mmvp")
    make_cv_bench(folder / "cv")
    assert launch.here("eval.py", *_asked(folder, "alone")) == 0
    return folder


def _asked(folder, out):
    return [
        *("--base", str(BASE), "--out", str(folder / out), "--set", SET, "--pairs", "21", "--generate", "5"),
        *("--corrupt", "grey", "--answers-per-batch", "3", "--benchmark", f"mmvp={folder / 'mmvp'}"),
        *("--benchmark", f"cv-bench={folder / 'cv'}"),
    ]


def told(folder):
    return json.loads((folder / "eval.json").read_text())


def answers(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_it_leaves_behind(alone):
    out = alone / "alone"
    assert {"eval.json", "heldout.answers.jsonl"} <= launch.strictly_json(out)
    found, scores = told(out), np.load(out / "heldout.npz")
    part = found["sets"]["heldout"]
    assert scores["logps"].shape == (21, 2, 4) and scores["logps"].dtype == np.float64 and (scores["logps"] < 0).all()
    assert scores["key"].tolist() == [f"heldout-{n:06d}" for n in range(21)] and scores["tokens"].shape == (21, 2)
    for name, value in metrics(scores["logps"], scores["tokens"]).items():
        assert part[name]["value"] == pytest.approx(value), name
        assert part[name]["low"] <= value <= part[name]["high"]
    for contrast, of in part["by_contrast"].items():
        rows = scores["contrast"] == contrast
        assert (of["pairs"], of["pair_accuracy"]["value"]) == (rows.sum(), pair_right(scores["logps"][rows]).mean())
    said = answers(out / "heldout.answers.jsonl")
    assert [(line["key"], line["side"]) for line in said] == [
        (f"heldout-{n:06d}", side) for n in range(5) for side in (0, 1)
    ]
    assert part["hallucination"]["value"] == sum(bool(line["false"]) for line in said) / 10
    assert any(line["false"] for line in said) and any(line["false"] == [] for line in said)
    benchmarks = found["benchmarks"]
    assert (benchmarks["mmvp"]["questions"], benchmarks["cv_bench"]["questions"]) == (6, 9)
    assert len(answers(out / "mmvp.answers.jsonl")) == 6
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("pair_accuracy.png", "gaps.png"))
    page = (out / "eval.md").read_text()
    assert (
        f"{100 * part['pair_accuracy']['value']:.1f}%" in page
        and "CV-Bench" in page
        and "corrupt view is `grey`" in page
    )


def test_two_ranks_say_what_one_process_says(alone):
    ranks = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(launch.free_port())]
    line = [sys.executable, *ranks, "launchers/eval.py", *_asked(alone, "two")]
    done = subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (np.load(alone / name / "heldout.npz") for name in ("alone", "two"))
    assert (one["key"] == two["key"]).all() and (one["tokens"] == two["tokens"]).all()
    assert np.abs(one["logps"] - two["logps"]).max() < 1e-4  # other packs, float32
    for name in ("heldout", "mmvp", "cv_bench"):
        assert answers(alone / "alone" / f"{name}.answers.jsonl") == answers(alone / "two" / f"{name}.answers.jsonl")
    assert told(alone / "two")["benchmarks"] == told(alone / "alone")["benchmarks"]


def test_against_itself_nothing_differs_and_against_another_something_does(alone, evaluate, tmp_path):
    code, said = evaluate(
        "--out", tmp_path / "out", "--set", SET, "--pairs", 14, "--dtype", "bfloat16", "--against", alone / "alone"
    )
    assert code == 0, said
    (label,) = told(tmp_path / "out")["against"]
    found = told(tmp_path / "out")["against"][label]["sets"]["heldout"]
    assert found["pair_accuracy"]["pairs"] == 14 and "perplexity_corrupt" not in found  # the other has a fourth view
    ours, theirs = (Evaluation.read(folder) for folder in (tmp_path / "out", alone / "alone"))
    gap = ours.sets["heldout"].logps - theirs.sets["heldout"].logps[:14, :, :3]
    by_hand = (gap[..., 0] - gap[..., 1]).mean(1)
    assert found["match_minus_blind"]["value"] == pytest.approx(by_hand.mean())
    assert found["match_minus_blind"]["se"] == pytest.approx(by_hand.std(ddof=1) / 14**0.5)
    assert (
        "bfloat16" in (tmp_path / "out" / "eval.md").read_text()
        and "difference" in (tmp_path / "out" / "eval.md").read_text()
    )
    same = paired(theirs, theirs, False)
    assert {"heldout"} == same["sets"].keys() and {"mmvp", "cv_bench"} == same["benchmarks"].keys()
    for comparison in (c for of in (same["sets"], same["benchmarks"]) for part in of.values() for c in part.values()):
        assert comparison["value"] == 0 and comparison["p"] == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--set", "heldout"], "must be NAME=SHARDS"),
        (["--set", "heldout="], "must be NAME=SHARDS"),
        (["--set", "mmvp=data_shards/heldout-000000.tar"], "that name is a benchmark's"),
        (["--set", "a=nowhere/*.tar"], "No shards match 'nowhere/*.tar'"),
        ([], "Nothing to evaluate on"),
        (["--set", SET, "--adapter", "nowhere"], "No adapter can be loaded from nowhere"),
        (["--set", SET, "--pairs", "-1"], "argument --pairs: it is -1 and must be at least 0"),
        (["--set", SET, "--against", "nowhere"], "nowhere is no finished evaluation"),
        (["--benchmark", "mmvp=nowhere"], "mmvp is the folder of MMVP's release"),
    ],
)
def test_mistakes_are_told_in_a_paragraph(evaluate, tmp_path, arguments, said):
    code, error = evaluate("--out", tmp_path / "out", *arguments)
    assert code == 2 and said in error and "Traceback" not in error
    assert not (tmp_path / "out" / "eval.json").exists()


def test_results_are_not_written_over(alone, evaluate):
    before = (alone / "alone" / "eval.json").read_bytes()
    code, error = evaluate("--out", alone / "alone", "--set", SET)
    assert code == 2 and "holds an evaluation already" in error and "another --out" in error
    assert (alone / "alone" / "eval.json").read_bytes() == before

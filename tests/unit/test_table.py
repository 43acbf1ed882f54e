"""`svco table`: TOTAL as the paper has it, figures and tests from evaluations, what is not there, what stands under a figure."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from benchmarks import make_cv_bench, make_mmvp
from judged import MAKERS, answered
from oracle import make_adapter
from places import BASE

from svco.basics.errors import UserError
from svco.commands.evaluation.anew import figures_anew
from svco.commands.evaluation.benchmarks.table import BENCHMARKS
from svco.commands.evaluation.wanted import Wanted as Evaluating
from svco.commands.evaluation.wanted import to_do
from svco.commands.study import published
from svco.commands.table.columns import COLUMNS, total
from svco.commands.table.figures import Evaluated, rows_of
from svco.commands.table.models import Model, models_of
from svco.commands.table.pages import gaps, notes, paper_rows, write_table
from svco.commands.table.wanted import Wanted

TITLES = [column.title for column in COLUMNS]
PAPER = {**published.LLAVA_15_7B, **{f"{name}, I": row for name, row in published.LLAVA_INTERLEAVE_7B.items()}}


@pytest.mark.parametrize("name", PAPER)
def test_total_is_the_papers(name):
    """To what its rounded figures allow."""
    base, row = (dict(zip(TITLES, PAPER[one])) for one in ("BASE, I" if name.endswith(", I") else "BASE", name))
    assert list(published.COLUMNS) == [*TITLES, "TOTAL"]
    value, over = total(base, row)
    assert value == pytest.approx(PAPER[name][-1], abs=0.35) and len(over) == 9
    if PAPER[name][-1]:
        unflipped = value + 2 * 100 * (row[TITLES[1]] / base[TITLES[1]] - 1) / 9
        assert row[TITLES[1]] == base[TITLES[1]] or unflipped != pytest.approx(value, abs=0.1), "the control"


def judge(line, rating):
    about = {"asked": "gpt-4o", "prompt": "mmhal", "prompt_sha256": "ab" * 32, "parameters": {}, "dollars": [2.5, 10]}
    said = {
        "values": {"rating": rating},
        "answered": "gpt-4o-x",
        "at": "2026-11-28T10:00:00",
        "said": f"Rating: {rating}",
    }
    said |= {"prompt_tokens": 100, "reply_tokens": 10}
    return {"key": line["key"], "answer": line["answer"], "judge": about, "judgements": [said], "failed": []}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Evaluations of a base and a run on MMHal-Bench, MMVP and MM-Vet, the last not judged; CV-Bench of the base alone."""
    folder = tmp_path_factory.mktemp("table")
    releases = {name: make(folder / "releases" / name) for name, make in MAKERS.items()}
    releases["mmvp"] = make_mmvp(folder / "releases" / "mmvp", 4)
    releases["cv_bench"] = make_cv_bench(folder / "releases" / "cv_bench")
    models = []
    for name, ratings, right in (("BASE", (0, 2, 4, 6, 1, 1, 3, 3), 3), ("A", (4, 2, 4, 6, 3, 5, 3, 2), 7)):
        for benchmark in ("mmhal", "mm_vet"):
            answered(
                folder / name / benchmark, name, {benchmark: releases[benchmark]}, lambda _, item: f"It is {item.name}."
            )
        path = folder / name / "mmhal"
        lines = [json.loads(line) for line in (path / "mmhal.answers.jsonl").read_text().splitlines()]
        judged = "".join(json.dumps(judge(line, rating)) + "\n" for line, rating in zip(lines, ratings))
        (path / "mmhal.judged.jsonl").write_text(judged)
        graded(folder / name, name, "mmvp", releases, right)
        if name == "BASE":
            graded(folder / name, name, "cv_bench", releases, 9)
        models.append(Evaluated(name, folder / name, {"base": "b"}))
        figures_anew(path)  # as svco judge leaves it
    return folder, models, {name: releases[name] for name in ("mmhal", "mmvp", "mm_vet", "cv_bench")}


def graded(folder, name, benchmark, releases, right):
    """An evaluation whose first ``right`` answers are right."""
    items = BENCHMARKS[benchmark].read(releases[benchmark])
    answered(folder / benchmark, name, {}, None)
    lines = []
    for place, item in enumerate(items):
        said = item.right if place < right else "z"
        line = {"key": item.name, "query": item.prompt, "right": item.right, "answer": said, "asked": True}
        lines.append(line | {"letter": said, "authors_letter": said, **item.labels})
    (folder / benchmark / f"{benchmark}.answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = json.loads((folder / benchmark / "eval.json").read_text())
    found["benchmarks"][benchmark] = BENCHMARKS[benchmark].summary(lines, False)
    (folder / benchmark / "eval.json").write_text(json.dumps(found))


def test_figures_their_errors_and_tests(made, tmp_path):
    folder, models, held = made
    base, run = rows_of(models, held, folder)
    rating, hallucination, mmvp = (run["figures"][TITLES[n]] for n in (0, 1, 3))
    ours, theirs = np.array([4, 2, 4, 6, 3, 5, 3, 2.0]), np.array([0, 2, 4, 6, 1, 1, 3, 3.0])
    assert rating["value"] == ours.mean() and base["figures"][TITLES[0]]["value"] == theirs.mean()
    gap = rating["against_base"]
    assert gap["difference"] == pytest.approx((ours - theirs).mean())
    assert gap["se"] == pytest.approx((ours - theirs).std(ddof=1) / math.sqrt(8)) and 0 < gap["p"] <= 1
    assert hallucination["value"] == 25 and base["figures"][TITLES[1]]["value"] == 50
    assert mmvp["value"] == 75 and base["figures"]["MMVP"]["value"] == 25, "pairs of 7 and of 3 right answers"
    assert mmvp["against_base"]["p"] == 0.5, "McNemar's: two pairs, both for the run"
    # TOTAL over what both have: two of MMHal's, whose questions are the same, and MMVP.
    told = run["total"]
    changes = [100 * (ours.mean() / theirs.mean() - 1), 50, 200]
    assert told["value"] == pytest.approx(sum(changes) / 3) and told["over"] == [TITLES[0], TITLES[1], "MMVP"]
    lone = 100 / 3 * math.sqrt(2)
    assert told["se"] > 0 and math.isfinite(told["se"]) and told["se"] != pytest.approx(lone)
    source = rating["source"]
    assert source["by"].startswith("svco ") and source["judge"]["answered"] == ["gpt-4o-x"]


def test_what_stands_under_a_figure_and_what_is_not_there(made):
    folder, models, held = made
    rows = rows_of(models, held, folder)
    under = {title: " | ".join(note["text"] for note in of) for title, of in notes(rows).items()}
    assert (
        "another judge and prompt than the paper's" in under["MMHal score"] and "abababababab" in under["MMHal score"]
    )
    assert "lmms-eval's copy corrects two pairs" in under["MMVP"] and "the release's formula" in under["CV-Bench"]
    told = {(one["column"], one["of"]): (one["gap"], one["do"]) for one in gaps(rows)}
    assert told["MM-Vet", ""] == ("answered, not judged", "the same command with --judge MODEL --yes")
    assert told["CV-Bench", "A"][0] == "not evaluated yet"
    (fetch,) = [do for (column, _), (_, do) in told.items() if "LLaVA-Bench-W" in column]
    assert fetch.startswith(f"cd {folder} && git clone https://huggingface.co/datasets/liuhaotian")
    damaged = [replace(model, problems={"llava_bench_w": "questions.jsonl is empty."}) for model in models]
    lacking = gaps(rows_of(damaged, held | {"llava_bench_w": folder}, folder))
    assert {"column": "LLaVA-Bench-W", "of": "", "gap": "questions.jsonl is empty.", "do": ""} in lacking
    for column in COLUMNS:
        for name in set(column.benchmarks) & BENCHMARKS.keys():
            assert BENCHMARKS[name].fetch.split()[0] in ("git", "wget", "svco", "curl", "hf", "huggingface-cli"), name


def test_the_papers_rows_are_its_own_and_of_the_same_columns(made, tmp_path):
    folder, models, held = made
    rows = rows_of(models, held, folder)
    (part,) = paper_rows("auto", "llava-hf/llava-1.5-7b-hf", rows)
    row = next(row for row in part["rows"] if row["name"] == "S-VCO · MVC")
    assert part["model"] == "LLaVA-1.5-7B" and row["total"] == 14.26
    assert row["total_over_same"] == pytest.approx(
        (100 * (2.75 / 2.16 - 1) + 100 * (57 - 46) / 57 + 100 * (25.3 / 21.3 - 1)) / 3
    )
    assert len(paper_rows("auto", "mine", rows)) == 2 and not paper_rows("none", "mine", rows)
    wanted = Wanted(base="mine", runs=(), where=folder, benchmarks=held, out=tmp_path)
    assert [path.name for path in write_table(models, wanted, print)] == ["table.json", "table.md", "index.html"]
    text, page = (tmp_path / "table.md").read_text(), (tmp_path / "index.html").read_text()
    for told in ("75.0", "+50.0, p 0.500", "reported there, not measured here", "over 3 of 9 columns", "gpt-4o-x"):
        assert told in text and told in page, told
    assert "http" not in page.replace("https://huggingface.co", "").replace("https://github.com", ""), "one file"


def test_a_run_that_has_trained_on_is_another_and_one_that_has_not_ended_is_said(tmp_path):
    make_adapter(BASE, tmp_path / "A" / "adapter")
    before, model = [models_of(str(BASE), [tmp_path / "A"], print)[n].digest({}, str(tmp_path)) for n in (0, 1)]
    assert before != model and model != Model("A", str(BASE), tmp_path / "A" / "adapter").digest(
        {"x": 1}, str(tmp_path)
    )
    shutil.rmtree(tmp_path / "A" / "adapter")
    make_adapter(BASE, tmp_path / "A" / "adapter", seed=4)
    assert models_of(str(BASE), [tmp_path / "A"], print)[1].digest({}, str(tmp_path)) != model
    (tmp_path / "B").mkdir()
    with pytest.raises(UserError, match="neither an adapter nor a model: it has not ended yet"):
        models_of(str(BASE), [tmp_path / "B"], print)
    with pytest.raises(UserError, match="There is no run"):
        models_of(str(BASE), [tmp_path / "C"], print)


def test_an_evaluation_apart_is_kept_and_never_mixed_with_another(tmp_path):
    folder = make_mmvp(tmp_path / "mmvp", 2)
    wanted = Evaluating(str(BASE), None, tmp_path / "out", {}, benchmarks={"mmvp": folder}, apart=True)
    (part,) = to_do(wanted)
    assert part.out == tmp_path / "out" / "mmvp" and part.out.is_dir()
    (part.out / "eval.json").write_text(json.dumps({"identity": part.identity}))
    assert to_do(wanted) == []
    for other in (replace(wanted, max_new_tokens=9), replace(wanted, options={"dtype": "bfloat16"})):
        with pytest.raises(UserError, match="another model, of other questions, or with other settings"):
            to_do(other)
    questions = folder / "Questions.csv"
    questions.write_text(questions.read_text().replace("(a)\n", "(b)\n", 1))  # a corrected answer
    with pytest.raises(UserError, match="of other questions"):
        to_do(wanted)

"""Paired benchmarks through ``svco eval``: log-probabilities of separate passes in float64, pages, comparisons, bad images."""

import json
import warnings

import launch
import numpy as np
import oracle
import pytest
import torch
from paired_benchmarks import make_naturalbench, make_vismin_bench, make_winoground
from places import BASE

from svco.commands.evaluation.benchmarks import naturalbench, vismin_bench, winoground
from svco.commands.evaluation.benchmarks.rows import picture_bytes

MAKERS = {"winoground": make_winoground, "vismin-bench": make_vismin_bench, "NaturalBench": make_naturalbench}
"""Folders of ``--benchmarks``, called as people call them."""
READERS = {module.NAME: module for module in (winoground, vismin_bench, naturalbench)}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(folder of the benchmarks, of the results): the base on all of them, and NaturalBench generated too."""
    folder = tmp_path_factory.mktemp("paired")
    for name, make in MAKERS.items():
        make(folder / "in" / name)
    (folder / "in" / "winoground" / "data" / "images" / "ex_3_img_1.png").write_bytes(b"torn")
    more = ["--benchmark", f"naturalbench_generated={folder / 'in' / 'NaturalBench'}", "--max-new-tokens", "4"]
    line = ["--base", str(BASE), "--workers", "0", "--max-text-tokens", "512", "--benchmarks", str(folder / "in")]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert launch.here("eval.py", *line, *more, "--out", str(folder / "out")) == 0
    assert any("1 pairs of winoground could not be scored and count as wrong: 3" in str(one.message) for one in said)
    return folder / "in", folder / "out", line


def lines(out, name):
    return [json.loads(line) for line in (out / f"{name}.answers.jsonl").read_text().splitlines()]


def test_every_cell_is_what_a_separate_pass_in_float64_says(evaluated):
    folder, out, _ = evaluated
    processor, model = oracle.load(BASE)
    for given, (name, module) in zip(MAKERS, READERS.items(), strict=True):
        items, found = module.read(folder / given), lines(out, name)
        assert [line["key"] for line in found] == [item.name for item in items]
        for item, line in list(zip(items, found, strict=True))[:3]:
            images = list(map(picture_bytes, item.images))
            for side in (0, 1):
                shown = (images[side], None, images[1 - side])
                with torch.no_grad():
                    found_here = [
                        oracle.sequence_logp(model, processor, item.query, item.responses[side], image)
                        for image in shown
                    ]
                assert line["logps"][side] == pytest.approx([float(logp) for logp, _ in found_here], abs=2e-3)
                assert {tokens for _, tokens in found_here} == {line["tokens"][side]} and line["cut"] == 0


def test_what_is_told_is_what_was_scored(evaluated):
    _, out, _ = evaluated
    told, page = json.loads((out / "eval.json").read_text())["benchmarks"], (out / "eval.md").read_text()
    assert list(told) == ["winoground", "vismin_bench", "naturalbench", "naturalbench_generated"]
    torn = lines(out, "winoground")[3]
    assert torn["logps"] is None and (told["winoground"]["questions"], told["winoground"]["not_asked"]) == (4, 1)
    assert told["winoground"]["pair_accuracy"]["value"] <= 0.75  # of four, and not of the three that could be scored
    logps = np.array([line["logps"] for line in lines(out, "vismin_bench")])
    text = (logps[:, 0, 0] > logps[:, 1, 2]) & (logps[:, 1, 0] > logps[:, 0, 2])
    assert told["vismin_bench"]["pair_accuracy"]["value"] == text.mean()
    assert set(told["vismin_bench"]["by_kind"]) == {"object", "attribute", "counting", "relation"}
    assert told["naturalbench"]["samples"] == told["naturalbench_generated"]["samples"] == 4
    assert told["naturalbench_generated"]["questions"] == 16
    for words in (
        "VisMin-Bench, group score",
        "G_Acc, no prior",
        "group accuracy, no prior",
        "counting",
        "multiple_choice",
    ):
        assert words in page, words


def test_against_itself_nothing_differs(evaluated, tmp_path):
    folder, out, line = evaluated
    only = [*line[:-2], "--benchmark", f"vismin_bench={folder / 'vismin-bench'}"]
    assert (
        launch.here("eval.py", *only, "--dtype", "bfloat16", "--against", str(out), "--out", str(tmp_path / "out")) == 0
    )
    (other,) = json.loads((tmp_path / "out" / "eval.json").read_text())["against"].values()
    assert other["benchmarks"].keys() == {"vismin_bench"} and other["benchmarks"]["vismin_bench"]["score"]["pairs"] == 4
    for comparison in other["benchmarks"]["vismin_bench"].values():
        assert comparison["low"] <= comparison["value"] <= comparison["high"] and 0 < comparison["p"] <= 1
    assert "group accuracy, no prior" in (tmp_path / "out" / "eval.md").read_text()

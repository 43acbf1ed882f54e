"""What the benchmark counts and compares: the claims that do not depend on a machine, and that a wrong row would be seen."""

import pickle
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.batches.layout import Layout
from svco.commands.bench import evaluation, gpu_conduct, gpu_report
from svco.commands.bench.count import LiveBytes
from svco.commands.bench.evaluation import SETS, bench_evaluation
from svco.commands.bench.gpu import Check, Timed, check_step
from svco.commands.bench.gpu_kept import AGAIN
from svco.commands.bench.gpu_report import PARTS, Outcome, go_on, page
from svco.commands.bench.head import bench_head
from svco.commands.bench.ladder import BASELINE, LADDER, PRODUCT, Tune, ladder
from svco.commands.bench.rivals import trl_batch
from svco.commands.bench.run import Plan, agree, run_plans, true_counts
from svco.commands.bench.shapes import SHAPES, random_pairs
from svco.model.logprobs import CHUNK_BYTES
from svco.objectives.table import make_objective
from svco.recipe.config import ObjectiveConfig

SVCO = make_objective(ObjectiveConfig())
ROWS = {row.name: row for row in LADDER}


def silent(items, what):
    return items


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_claims_at_llava15_shapes(full):
    """576 image, 40 prompt and 60 response tokens at the width of 7B; 4 layers, from which per-layer counts add up to 32."""
    # The vision tower at its share of the depth, as every cut of a shape has it.
    shape = SHAPES["llava15-7b"].reduced(layers=4, scale=1.0, vocabulary=0)
    ours, theirs = (true_counts(shape, ROWS[name], SVCO, Tune(full)) for name in (PRODUCT, BASELINE))
    assert (theirs["llm_tokens"], theirs["images"]) == (2904, 8)
    assert ours["llm_tokens"] == ours["reference_tokens"] <= 1640
    assert ours["images"] == 2
    assert ours["flops"] <= 0.60 * theirs["flops"]
    assert ours["held"]["hidden states"] <= 0.57 * theirs["held"]["hidden states"]
    assert ours["largest_logits"] <= CHUNK_BYTES < theirs["largest_logits"]
    assert ours["held"].get("logits", 0) == 0 < theirs["held"]["logits"]
    cached = true_counts(shape, ROWS["+ cached reference"], SVCO, Tune(full))
    assert cached["reference_tokens"] == 0
    assert cached["flops"] < 0.82 * ours["flops"]
    swept = true_counts(shape, ROWS["+ cached and nothing recomputed"], SVCO, Tune(full))
    assert swept["flops"] <= (0.33 if full else 0.28) * theirs["flops"]
    whole, apart = (true_counts(shape, ROWS[name], SVCO, Tune(full)) for name in ("+ one product", "+ lockstep"))
    # With adapters recomputation repeats a layer's last product unless both are one.
    spared = 0 if full else 2 * 1626 * shape.layers * shape.hidden * shape.intermediate
    assert apart["flops"] - whole["flops"] == spared
    # Of a quarter of the layers, what is not keys and values is asked of 357 of 1,626 tokens.
    assert ours["flops"] == pytest.approx(whole["flops"] * (1 - 0.25 * 0.78 * 0.83), rel=0.03)
    once = true_counts(shape, ROWS["+ nothing recomputed"], SVCO, Tune(full))
    assert once["parts"]["decoder's matrices"] == pytest.approx(once["floor"], rel=0.001 if not full else 0.01)
    assert sum(once["parts"].values()) == once["flops"]


def test_flops_are_those_of_the_arithmetic():
    """LoRA aside, which adds a little: 2 a weight and token and pass, of which there are four."""
    shape = replace(SHAPES["llava15-7b"], layers=2, vision_layers=2)
    counts = true_counts(shape, ROWS["+ lockstep"], SVCO, Tune(full=False, rank=1))
    h, tokens = shape.hidden, 1626
    linear = 2 * tokens * shape.layers * (4 * h * h + 3 * h * shape.intermediate)
    areas = sum(p * (p + 1) / 2 + 2 * (59 * (p + 59) - 59 * 58 / 2) for p in (616, 616, 40))
    attention = 2 * 2 * areas * h * shape.layers
    head = 2 * 360 * h * shape.vocabulary
    # Reference, forward, recomputation and, of the frozen base, one backward product; attention's backward is 2.5 forwards.
    expected = 4 * linear + (3 + 2.5) * attention + 3 * head
    vision = 2 * 2 * 577 * 2 * 12 * 1024**2 + 2 * 2 * 576 * (1024 * h + h * h)
    assert counts["flops"] == pytest.approx(expected + vision, rel=0.02)


def test_live_bytes_follow_what_lives():
    live = LiveBytes(iter(()), SHAPES["tiny"])
    with live:
        kept = torch.zeros(1, 10, 128)
        dropped = torch.zeros(1, 30, 128)
        del dropped
        more = torch.zeros(1, 20, 128)
    assert live.held() == {"hidden states": 4 * 128 * 30}
    assert live.peak == 4 * 128 * 40
    del kept, more
    assert not live.held()


@pytest.mark.parametrize(("objective", "full"), [("svco", False), ("svco", True), ("mdpo", False)])
def test_every_row_computes_the_same(objective, full):
    (result,) = run_plans([Plan("tiny", objective=objective, full=full, repetitions=1)], None, World(), silent)
    rows = result["rows"]
    assert [row["row"] for row in rows] == [row.name for row in ladder(full)]
    assert agree(rows, 1e-5) <= 1e-5
    assert all(row["seconds"] and row["floor_flops"] for row in rows)
    wrong = [dict(row) for row in rows]
    wrong[-1]["logps"] = [x * 1.001 for x in wrong[-1]["logps"]]
    with pytest.raises(UserError, match="different log-probs"):
        agree(wrong, 1e-5)
    wrong = [dict(row) for row in rows]
    wrong[3]["grad_norm"] *= 1.001
    with pytest.raises(UserError, match="or gradients"):
        agree(wrong, 1e-5)


def test_the_gpu_checks_see_a_step_that_is_wrong(monkeypatch):
    shape, cpu = SHAPES["tiny"], torch.device("cpu")
    assert all(check.passed for check in check_step(shape, cpu, torch.float32, "sdpa"))
    half = check_step(shape, cpu, torch.bfloat16, "sdpa")
    assert all(check.passed for check in half), half
    assert all(check.error > 1e-4 for check in half), "bfloat16 rounds"
    right = Layout._tree

    def siblings_seen(*given):
        tree = right(*given)
        return replace(tree, visible=tree.at[:, None] >= np.arange(tree.visible.shape[1]))

    monkeypatch.setattr(Layout, "_tree", siblings_seen)
    for dtype in (torch.float32, torch.bfloat16):
        assert not all(check.passed for check in check_step(shape, cpu, dtype, "sdpa")), dtype


def test_checks_that_were_not_judged_are_not_called_passed():
    assert Check("noise", 0.3, None).row()[-1] == "measured"
    assert Check("noise", 0.0, 0.0).row()[-1] == "passed"
    for check in (Check("nan", float("nan"), None), Check("nan", float("nan"), 1.0), Check("large", 2.0, 1.0)):
        assert not check.passed
        assert check.row()[-1] == "**FAILED**"
    assert Check("flash", 0.0, 1.0, note="not installed").passed


def test_a_row_that_ran_out_of_memory_is_a_row_of_the_table():
    rows = [Timed(BASELINE, [2.0], peak=10**9, loss=2.5), Timed(PRODUCT, [], failed="out of memory")]
    lines = page(Outcome("a GPU", ladders={"LoRA": rows})).splitlines()
    assert f"| {BASELINE} | 2 | 1.000 | – | 1.0 | 2.5000 |" in lines
    assert f"| {PRODUCT} | out of memory |  |  |  |  |" in lines


def test_a_gpu_check_goes_on_behind_what_fails(monkeypatch, tmp_path):
    """A part that raises, one that takes its process along, spoilt CUDA, and the end of the time: what was found is kept."""

    def raises(outcome, here):
        raise RuntimeError("an illegal memory access")

    parts = dict.fromkeys(PARTS, lambda outcome, here: None) | {"log-prob head": raises}
    monkeypatch.setattr(gpu_report, "PARTS", parts)
    monkeypatch.setattr(gpu_report, "_spoilt", lambda device: "log-prob head" in kept().played[-1:])

    def kept():
        return pickle.loads((tmp_path / "outcome").read_bytes())

    soon = time.time() + 300
    assert go_on(tmp_path, tmp_path, soon) == AGAIN
    assert "log-prob head: RuntimeError" in (tmp_path / "page.md").read_text()
    lost = kept()
    lost.doing = "a step against six forwards"  # as its process left it
    (tmp_path / "outcome").write_bytes(pickle.dumps(lost))
    assert go_on(tmp_path, tmp_path, time.time() - 1) == 1
    assert go_on(tmp_path, tmp_path, soon) == 1
    assert kept().played == list(PARTS)
    told = page(kept())
    assert "a step against six forwards: its process ended" in told and "Left out" not in told
    lost.played = lost.played[:2]
    assert "Left out for lack of time: a step" in page(lost)


def test_a_gpu_check_ends_in_time(tmp_path, capfd):
    assert gpu_conduct.conduct(tmp_path, minutes=0, began=time.time()) == 1
    assert "Nothing was checked" in capfd.readouterr().out


def test_trl_is_given_the_same_tokens():
    """Chosen is response 0, rejected response 1, both under image 0, and the completion is the response alone."""
    shape = SHAPES["tiny"]
    pairs = random_pairs(shape, 2, 0)
    batch = trl_batch(SimpleNamespace(pairs=pairs))
    for row, (side, pair) in enumerate((s, p) for s in (0, 1) for p in pairs):
        scored = batch["input_ids"][row][batch["completion_mask"][row].bool()]
        assert scored.tolist() == pair.text.responses[side].tolist()
        shown = batch["attention_mask"][row].bool() & ~batch["completion_mask"][row].bool()
        assert batch["input_ids"][row][shown].tolist() == pair.text.prefixes[0].tolist()
        assert torch.equal(batch["pixel_values"][row], pair.images[0])


def test_the_head_is_compared_with_plain_logits_and_torchs_own():
    text = bench_head(SHAPES["tiny"], World())
    rows = [line.split("|")[1:-1] for line in text.splitlines() if "head |" in line]
    assert len(rows) >= 4
    for name, _, _, _, logp, gradient in rows:
        assert float(logp) <= 1e-5, name
        assert float(gradient) <= 1e-5, name


def test_pairs_scored_packed_and_one_by_one_agree_and_packed_is_less(monkeypatch):
    """Tokens by hand: three prefixes once and both answers behind each, against a sequence a cell."""
    plan = Plan(pairs=2, repetitions=1)
    ((name, texts), *_) = SETS.items()
    monkeypatch.setattr(evaluation, "SETS", {name: texts})
    report = bench_evaluation(plan, World())
    image, text, answer = plan.true_shape.features, texts.prompt, texts.response
    apart = 4 * (image + text + answer) + 2 * (text + answer)
    # The last token of an answer predicts nothing and is left out.
    packed = 2 * (image + text + 2 * (answer - 1)) + text + 2 * (answer - 1)
    assert f"| {name}, {text} + {answer} tokens of text | {apart:,} → {packed:,} | 4 → 2 |" in report
    right = evaluation.one_by_one
    monkeypatch.setattr(evaluation, "one_by_one", lambda *given: right(*given) + 0.5)
    with pytest.raises(UserError, match=f"{name}: the two ways differ by 0.5"):
        bench_evaluation(plan, World())

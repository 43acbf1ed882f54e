"""The plan's formulas against torch's own counters, hooks and meta tensors; and what it advises."""

import json
import re
from dataclasses import replace

import launch
import numpy as np
import pytest
import torch
from places import RECIPES, ROOT

from svco.basics.errors import UserError
from svco.batches.blocks import STRIP
from svco.batches.encode import EncodedPair
from svco.batches.pack import PackedCollate
from svco.cli import main
from svco.commands.bench.plan_check import Case, check, described
from svco.commands.bench.shapes import SHAPES, SyntheticFamily, random_pairs
from svco.commands.plan import activations, workload
from svco.commands.plan.architecture import architecture
from svco.commands.plan.calibration import calibrated
from svco.commands.plan.machine import GPUS, Machine, network
from svco.commands.plan.memory import gpu_memory
from svco.commands.plan.planner import advise, make_plan, plan_all, usable
from svco.commands.plan.question import Assumed, ask
from svco.commands.plan.report import as_json, text
from svco.commands.plan.scaling import curve
from svco.commands.plan.workload import Micros, pair_row
from svco.families import EncodedText
from svco.families.published import PUBLISHED, published_config
from svco.model.logprobs import CHUNK_BYTES
from svco.objectives.table import make_objective
from svco.recipe.config import ObjectiveConfig
from svco.recipe.ds_config import read_ds_config
from svco.recipe.read import load_recipe

CONFIGS = {file.stem: read_ds_config(file) for file in sorted((ROOT / "ds_configs").glob("*.json"))}
GROUPED = SHAPES["llava16-34b"].reduced(3, 0.125, 4008)
WIDE = replace(SHAPES["llava15-7b"], layers=2, vision_layers=2)


def machine(gpus=8, nodes=1, gpu="h100-80g", interconnect="400gb"):
    return Machine(GPUS[gpu], gpus, nodes, network(interconnect), interconnect)


def asked(recipe, *overrides):
    return ask(
        recipe, load_recipe(ROOT / "launchers" / "recipes" / f"{recipe}.yaml", overrides), Assumed(), measure=False
    )


@pytest.mark.parametrize(
    "case",
    [
        *(Case(f"LoRA, {n} recomputed", SHAPES["tiny"], False, n, "float32", 1) for n in (0, 1, 4)),
        Case("LoRA, a fuller row", SHAPES["tiny"], False, 4, "float32", 5),
        *(Case(f"full, {n} recomputed", SHAPES["tiny"], True, n, "float32", 2) for n in (0, 3)),
        Case("grouped keys, LoRA", GROUPED, False, 1),
        Case("grouped keys, full", GROUPED, True, 3),
        Case("7B's width, LoRA", WIDE, False, 2),
        Case("7B's width, full", WIDE, True, 0),
        Case("real tensors, LoRA", SHAPES["tiny"], False, 2, "float32", 2, real=True),
        Case("real tensors, full", SHAPES["tiny"], True, 1, "float32", 1, real=True),
    ],
    ids=lambda case: case.name,
)
def test_memory_within_a_tenth_and_flops_within_a_hundredth(case):
    rows = check(case)
    assert len(rows) == 5
    for row in rows:
        assert row.passed, str(row)


def test_a_plan_of_something_else_is_seen():
    """The control: one layer more or less, half the pairs, another rank."""
    case = Case("LoRA", SHAPES["tiny"], False, 2, "float32", 2)
    counted = {row.quantity: row for row in check(case)}
    for wrong in (replace(case, recompute=1), replace(case, pairs=1), replace(case, full=True)):
        a, tuning, row = described(wrong)
        made = activations.activations(a, tuning, row, wrong.recompute, activations.Kernels(widened_head=True))
        off = replace(counted["kept for the backward pass"], planned=made.kept)
        assert not off.passed, wrong


@pytest.mark.parametrize("two_way", [False, True])
def test_rows_are_those_of_the_packer(two_way):
    """Lengths that differ between conditions and sides, and objectives that read some cells only; images whose tokens see each
    other, and a window shorter than an image."""
    rng = np.random.default_rng(0)
    shape = SHAPES["tiny"]
    a = replace(described(Case("", shape, False, 0))[0], two_way_images=two_way, window=20)
    family = SyntheticFamily(shape)
    family.two_way_images = two_way
    pair = random_pairs(shape, 1, 0)[0]

    def ids(length):
        return rng.integers(3, 500, length)

    query = ids(11)
    shown = np.concatenate([np.full(shape.features, shape.vocabulary - 1), query])
    encoded = EncodedPair(EncodedText((shown, shown, query), (ids(7), ids(13)), 0), pair.images, 1.0)
    for name in ("svco", "dpo", "sft", "mdpo"):
        cells = make_objective(ObjectiveConfig(name=name)).cells
        batch = PackedCollate(cells)([encoded], family)
        row = pair_row(cells, (len(shown), len(shown), len(query)), (7, 13), shape.features, 1.0, a)
        assert row.tokens == batch.llm_tokens
        assert row.keys == len(batch.layout.key_index)
        assert row.area == batch.layout.pairs
        for near, layout in ((row.near, batch.layout), (row.asked_near, batch.tail.layout)):
            assert near == sum(tree.within(a.window).visible.sum() for tree in layout.trees) < layout.pairs
        assert row.scored == len(batch.targets)
        assert row.images == len(batch.pixels)
        assert row.features == len(batch.image_slots)
        assert row.blocks == sum(tree.visible.size for tree in batch.layout.trees), "short trees are one strip"
        assert (row.asked, row.asked_area) == (len(batch.tail.rows), batch.tail.layout.pairs)
        assert row.asked_blocks == sum(tree.visible.size for tree in batch.tail.layout.trees)


@pytest.mark.parametrize("base", PUBLISHED)
def test_every_published_weight_is_counted(base):
    """Against the whole model on the meta device; a tied head once."""
    from transformers import AutoModelForImageTextToText

    config = published_config(base)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    a = architecture(base)
    assert a.weights == sum(p.numel() for p in model.parameters())
    assert a.tied == (model.lm_head.weight is model.get_input_embeddings().weight)
    assert a.image_tokens > 100
    assert a.tower.tokens or a.tower.window or a.tower.whole_blocks == a.tower.layers, (
        "every block attends to something"
    )
    assert a.layers == config.get_text_config().num_hidden_layers


def test_a_target_that_no_layer_has_is_refused():
    with pytest.raises(UserError, match=r"lora\.targets names fc1"):
        asked("llava15_7b_lora", "lora.targets=[q_proj, fc1]")


def test_the_chunk_is_the_heads():
    assert activations.CHUNK_BYTES == CHUNK_BYTES
    assert workload.STRIP == STRIP


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_has_a_plan(recipe):
    question = ask(recipe.stem, load_recipe(recipe), Assumed(), measure=False)
    plans, refused = plan_all(question, machine(8, 4), CONFIGS)
    # What the run refuses too: DeepSpeed swaps one model; no base in 4 bits is sharded.
    in_4_bits = question.tuning.quantised
    swapped = {"zero3_nvme"} if question.tuning.copied else set()
    assert refused.keys() == (CONFIGS.keys() - {"zero2"} if in_4_bits else swapped)
    assert all(("model.quantise is nf4" if in_4_bits else "model.reference=cached") in why for why in refused.values())
    assert [plan.ds for plan in plans] == [name for name in CONFIGS if name not in refused]
    quantised = {plan.ds for plan in plans if plan.sharding.quantized_weights or plan.sharding.quantized_gradients}
    assert quantised == ({"zeropp"} if question.tuning.full else set())
    advice = advise(question, plans)
    assert advice.plan is not None, advice.why
    said = text(question, plans, refused, advice)
    for word in ("assumed", "± 35%", "layers recomputed", advice.why):
        assert word in said
    assert "nan" not in json.dumps(as_json(question, plans, refused, advice)).lower()


def test_the_largest_budget_is_the_largest_that_fits():
    question = asked("llava15_7b_full_paper", "optim.recompute=all")
    where = machine()
    plan = make_plan(question, where, "zero3", CONFIGS["zero3"])

    def total(budget):
        row = question.longest.times(budget / question.longest.tokens)
        a = question.architecture
        return gpu_memory(a, question.tuning, plan.sharding, 8, Micros(1, row, row), a.layers)[0].total

    assert total(plan.largest_budget) <= usable(where) < total(plan.largest_budget + 256)


def test_recomputation_fills_what_memory_there_is():
    """More memory, fewer layers; and one layer fewer would not fit."""
    question = asked("llava15_7b_full_paper")
    counts = {}
    for gpu in ("a100-40g", "h100-80g", "h200-141g"):
        where = machine(gpu=gpu)
        plan = make_plan(question, where, "zero3", CONFIGS["zero3"])
        counts[gpu] = plan.memory.recompute
        if 0 < plan.memory.recompute < 32:
            a = question.architecture
            less, _ = gpu_memory(a, question.tuning, plan.sharding, 8, plan.micros, plan.memory.recompute - 1)
            assert plan.memory.total <= usable(where) < less.total
    assert counts["a100-40g"] > counts["h100-80g"] >= counts["h200-141g"] == 0


def test_checkpoints_that_take_much_of_a_run_are_told_with_how_many_are_enough():
    lora, full = (
        advise(question, plan_all(question, machine(), {"zero3": CONFIGS["zero3"]})[0])
        for question in (asked("llava15_13b_lora"), asked("llava15_7b_full_paper"))
    )
    assert "Its 11 checkpoints take" in lora.why and "Its 11 checkpoints take" in full.why
    assert "checkpoint.every=0, one at the end," in full.why, "one takes longer than a tenth of the run"
    every = int(re.search(r"checkpoint\.every=(\d+) is enough", lora.why)[1])
    assert 31 < every < lora.plan.steps
    for recipe, wanted in (("llava15_13b_lora", every), ("llava15_7b_full_paper", 0)):
        rarer = asked(recipe, f"checkpoint.every={wanted}")
        plan = make_plan(rarer, machine(), "zero3", CONFIGS["zero3"])
        assert "checkpoints take" not in advise(rarer, [plan]).why
        assert plan.saves == 1 or plan.save <= 0.05 * plan.steps * plan.time.total


def test_which_config():
    lora = asked("llava15_7b_lora")
    plans, _ = plan_all(lora, machine(8, 4), CONFIGS)
    advice = advise(lora, plans)
    assert advice.plan.ds == "zero2"
    assert "pure cost" in advice.why
    by_name = {plan.ds: plan for plan in plans}
    assert by_name["zero3"].travel.across > 50 * by_name["zero2"].travel.across

    full = asked("llava16_34b_full")
    plans, _ = plan_all(full, machine(8, 4), {name: CONFIGS[name] for name in ("zero2", "zero3")})
    assert advise(full, plans).plan.ds == "zero3"
    assert not plans[0].fits
    assert plans[0].memory.largest == "weights"


@pytest.mark.parametrize(("recipe", "gpu"), [("llava15_13b_qlora", "rtx4090-24g"), ("llava16_34b_qlora", "a100-80g")])
def test_a_base_in_4_bits_fits_one_gpu_and_goes_with_no_config_that_shards_it(recipe, gpu):
    (plan,), refused = plan_all(asked(recipe), machine(1, 1, gpu), CONFIGS)
    assert plan.ds == "zero2" and plan.fits
    assert refused.keys() == CONFIGS.keys() - {"zero2"}
    assert all("model.quantise is nf4: transformers loads" in why for why in refused.values())
    in_full = make_plan(asked(recipe, "model.quantise=none"), machine(1, 1, gpu), "zero2", CONFIGS["zero2"])
    assert not in_full.fits and in_full.memory.largest == "weights"
    assert in_full.memory.weights > 3 * plan.memory.weights
    # Making matrices whole takes a little time; with equally many layers recomputed.
    ours, theirs = (make_plan(asked(recipe, f"model.quantise={held}", "optim.recompute=none"), machine(1, 1, gpu), "zero2",
                              CONFIGS["zero2"]).time.compute for held in ("nf4", "none"))  # fmt: skip
    assert 1 < ours / theirs < 1.1


def test_a_second_partition_keeps_frozen_weights_in_the_node():
    ds = CONFIGS["zero3"] | {
        "zero_optimization": CONFIGS["zero3"]["zero_optimization"] | {"zero_hpz_partition_size": 8}
    }
    question = asked("llava15_7b_lora")
    plain, second = (
        make_plan(question, machine(8, 4), name, c) for name, c in (("zero3", CONFIGS["zero3"]), ("hpz", ds))
    )
    assert second.travel.across == 2 * question.tuning.trained(question.architecture)
    assert second.memory.weights == pytest.approx(
        plain.memory.weights + 2 * question.tuning.held(question.architecture) / 8
    )
    assert second.time.total < plain.time.total


def test_offloaded_states_leave_the_gpu():
    zero = CONFIGS["zero3"]["zero_optimization"]
    offloaded = {"offload_param": {"device": "nvme", "nvme_path": "auto"}, "offload_optimizer": {"device": "cpu"}}
    question = asked("llava15_7b_full_paper", "model.reference=cached")
    plain = make_plan(question, machine(), "zero3", CONFIGS["zero3"])
    moved = make_plan(question, machine(), "moved", CONFIGS["zero3"] | {"zero_optimization": zero | offloaded})
    trained = question.tuning.trained(question.architecture)
    assert moved.memory.optimizer == 0
    assert moved.host.memory - plain.host.memory == pytest.approx(16 * trained)
    assert moved.host.nvme == pytest.approx(2 * question.tuning.held(question.architecture))
    assert moved.time.total > plain.time.total


def test_what_does_not_fit_says_why_and_what_would():
    question, kept = asked("llava15_7b_full_paper"), {name: CONFIGS[name] for name in ("zero2", "zero3")}
    plans, _ = plan_all(question, machine(1, gpu="rtx4090-24g"), kept)
    advice = advise(question, plans)
    assert advice.plan is None
    assert "Nothing fits 1 rtx4090-24g" in advice.why
    fitting = re.search(r"(\w+) fits on (\d+) of these GPUs", advice.why)
    name, ranks = fitting[1], int(fitting[2])
    budgets = {
        n: make_plan(question, machine(min(8, n), -(-n // 8), gpu="rtx4090-24g"), name, CONFIGS[name]).largest_budget
        for n in (ranks // 2, ranks)
    }
    assert budgets[ranks] > budgets[ranks // 2] == 0

    crowded = asked("llava15_7b_lora", "optim.recompute=none", "optim.tokens_per_micro_batch=100000")
    plans, _ = plan_all(crowded, machine(1, gpu="a100-40g"), {"zero3": CONFIGS["zero3"]})
    advice = advise(crowded, plans)
    assert advice.plan is None
    budget = plans[0].largest_budget
    assert f"zero3 fits with optim.tokens_per_micro_batch={budget} and optim.recompute=all" in advice.why
    mended = asked("llava15_7b_lora", "optim.recompute=all", f"optim.tokens_per_micro_batch={budget}")
    assert make_plan(mended, machine(1, gpu="a100-40g"), "zero3", CONFIGS["zero3"]).fits
    with pytest.raises(UserError, match="at least one pair"):
        plan_all(question, machine(8, 8), CONFIGS)


def test_a_run_calibrates_its_own_plan(tmp_path):
    question, where = asked("llava15_7b_lora"), machine()
    planned = make_plan(question, where, "zero3", CONFIGS["zero3"]).time.total
    speed = question.config.optim.global_batch / (2 * planned)
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps({"pairs_per_second": speed}) for _ in range(9)))
    (tmp_path / "versions.json").write_text(json.dumps({"ranks": 8}))
    measured = calibrated(where, str(tmp_path), question, ("zero3", CONFIGS["zero3"]))
    again = make_plan(question, measured, "zero3", CONFIGS["zero3"]).time
    assert again.total == pytest.approx(2 * planned, rel=0.02)
    assert again.uncertainty < 0.35
    with pytest.raises(UserError, match="the one --ds config"):
        calibrated(where, str(tmp_path), question, None)


def test_a_gpu_check_calibrates(tmp_path):
    question, where = asked("llava15_7b_lora"), machine()
    file = tmp_path / "2026_calibration.json"

    def plan(seconds):
        step = {"layers": 32, "hidden": 4096, "unique_tokens": 4 * 1626, "seconds": seconds, "peak_bytes": 0}
        found = {"device": "H100", "matmul_flops_per_second": 7e14, "lora_step": {"+ last layer": step}}
        file.write_text(json.dumps(found))
        measured = calibrated(where, str(file), question, None)
        assert measured.reached.matmul == pytest.approx(7e14 / 989e12)
        return make_plan(question, measured, "zero2", CONFIGS["zero2"]).time

    slow, quick = plan(2.0), plan(1.0)
    assert slow.compute == pytest.approx(2 * quick.compute)
    file.write_text("{}")
    with pytest.raises(UserError, match="is not what launchers/gpu_check.py writes"):
        calibrated(where, str(file), question, None)


def test_scaling_to_a_thousand_gpus():
    """More GPUs do more; ZeRO-3's gathers of LoRA are hidden inside a node and cost beyond it."""
    question = asked("llava15_7b_lora")
    for weak in (False, True):
        points = curve(question, machine(), "zero2", CONFIGS["zero2"], weak)
        assert [point.ranks for point in points] == [2**n for n in range(11)]
        speeds = [point.pairs_per_second for point in points]
        assert all(after > before for before, after in zip(speeds, speeds[1:]))
        assert speeds[-1] < 1024 * speeds[0]
    gathered = {p.ranks: p for p in curve(question, machine(), "zero3", CONFIGS["zero3"], weak=True)}
    assert gathered[16].exposed > 2 * gathered[8].exposed


def test_lengths_are_cut_as_the_run_cuts_them(tmp_path, monkeypatch):
    """A budget that just holds what tells some answers apart; the authors count one token more, and those pairs are bad."""
    monkeypatch.chdir(ROOT)
    line = ["data.train=data_shards/train-000000.tar", "data.max_text_tokens=24", f"data.cache_dir={tmp_path}"]
    found = [
        ask("tiny", load_recipe(ROOT / "launchers" / "recipes" / "tiny.yaml", [*line, *more]), Assumed())
        for more in ([], ["model.paper_compat=true"])
    ]
    assert all("measured" in question.assumptions[0] for question in found)
    assert found[0].pair.tokens != found[1].pair.tokens


def test_the_command(tmp_path, monkeypatch, capsys):
    """A recipe whose shards are here is measured; mistakes are told in a sentence."""
    monkeypatch.chdir(ROOT)

    def svco(*arguments):
        monkeypatch.setattr("sys.argv", ["svco", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, *capsys.readouterr()

    files = [tmp_path / "plan.json", tmp_path / "scaling.png"]
    code, out, err = svco("launchers/recipes/tiny.yaml", "--gpus", 2, "--json", files[0], "--figure", files[1])
    assert code == 0, err
    assert "lengths: measured" in out
    assert "model, not measured" in out
    assert files[1].stat().st_size > 10_000
    assert launch.strictly_json(tmp_path) == {"plan.json"}
    found = json.loads(files[0].read_text())
    assert found["recommended"] in {plan["ds"] for plan in found["plans"]} == CONFIGS.keys()
    code, _, err = svco("launchers/recipes/tiny.yaml", "--gpu", "h300")
    assert code == 2
    assert "known: a100-40g" in err
    assert "Traceback" not in err

"""Other families under ZeRO-3 on 2 ranks: what hangs on the whole model (a newline), a tower of its own, three position axes."""

import launch
import pytest
import tiny_families

RECIPE = [
    "optim.steps=3",
    "optim.global_batch=6",
    "optim.tokens_per_micro_batch=900",
    "optim.lr=1e-2",
    "data.validation=",
    "data.heldout=",
    "evaluate.pictures=0",
]


@pytest.mark.parametrize(
    ("name", "tune"),
    [("next_yi", "model.tune=full"), ("qwen25_vl", "model.train_projector=true")],
    ids=["llava_next-full", "qwen25_vl-lora"],
)
def test_equals_one_process_without_deepspeed(name, tune, tmp_path, zero3):
    base = tiny_families.make_base(name, tmp_path / "base")
    recipe = [*RECIPE, f"model.base={base}", tune, f"run.root={tmp_path}"]
    launch.run(2, zero3, *recipe, "run.name=two")
    launch.alone(*recipe, "run.name=plain")
    ours, theirs = (launch.training(tmp_path / run) for run in ("two", "plain"))
    for step in (1, 2, 3):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-3)
        assert ours[step]["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], rel=1e-2)
    assert ours[1]["grad_norm"] == pytest.approx(theirs[1]["grad_norm"], rel=1e-5)
    assert abs(ours[3]["loss"] - ours[1]["loss"]) > 0.003, "three steps have to move something"

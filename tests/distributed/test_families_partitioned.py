"""Other families under ZeRO-3 on 2 ranks: what hangs on the whole model (a newline), a tower of its own, three position axes,
features that are added behind layers, a head that the config's class would tie to the embedding and one that is the
embedding, tiles with texts between them, a bare parameter that projects, layers that carry a state."""

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


TUNED = {
    "next_yi": "model.tune=full",
    "qwen25_vl": "model.train_projector=true",
    "qwen3_vl": "model.train_projector=true",
    "internvl": "model.tune=full",
    "smolvlm": "model.train_projector=true",
    "gemma3": "model.tune=full",
    "qwen35": "model.tune=full",
}
"""Family -> what is trained."""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, zero3):
    """Family -> (recipe, folder of its runs), trained on 2 ranks as run ``two``."""
    root, made = tmp_path_factory.mktemp("families"), {}
    for name, tune in TUNED.items():
        base = tiny_families.make_base(name, root / name / "base")
        made[name] = [*RECIPE, f"model.base={base}", tune, f"run.root={root / name}"], root / name
    launch.runs(2, *((zero3, [*recipe, "run.name=two"]) for recipe, _ in made.values()))
    return made


@pytest.mark.parametrize("name", TUNED)
def test_equals_one_process_without_deepspeed(name, recipes):
    recipe, folder = recipes[name]
    launch.alone(*recipe, "run.name=plain")
    ours, theirs = (launch.training(folder / run) for run in ("two", "plain"))
    for step in (1, 2, 3):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-3)
        assert ours[step]["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], rel=1e-2)
    assert ours[1]["grad_norm"] == pytest.approx(theirs[1]["grad_norm"], rel=1e-5)
    assert abs(ours[3]["loss"] - ours[1]["loss"]) > 0.003, "three steps have to move something"

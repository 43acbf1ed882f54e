"""What a run is, compared; and checkpoints of a history that was left."""

import pytest

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.recipe.limits import kinds
from svco.record.checkpoint import Checkpoints
from svco.record.identity import check_identity
from svco.record.manifest import Position, finished, read_identity
from svco.run.identity import FREE, TOLD_OTHERWISE

BEFORE = {"lora.alpha": 32.0, "objective.beta": 0.1, "the base model's weights": "abc"}


def test_every_difference_is_named_with_both_values(tmp_path):
    assert check_identity(BEFORE, dict(BEFORE), (), {}, tmp_path) == []
    now = BEFORE | {"lora.alpha": 64.0, "objective.beta": 0.2}
    with pytest.raises(UserError) as error:
        check_identity(BEFORE, now, (), {}, tmp_path)
    for words in (
        "lora.alpha was 32.0 and is 64.0",
        "objective.beta was 0.1 and is 0.2",
        "[lora.alpha,objective.beta]",
    ):
        assert words in str(error.value)
    with pytest.raises(UserError, match="lora.alpha was 32.0") as error:
        check_identity(BEFORE, now, ("objective.beta",), {}, tmp_path)
    assert "objective.beta was" not in str(error.value)
    assert check_identity(BEFORE, now, ("objective.beta", "lora.alpha"), {}, tmp_path) == [
        "lora.alpha was 32.0 and is 64.0 now",
        "objective.beta was 0.1 and is 0.2 now",
    ]
    with pytest.raises(UserError, match="run.allow_change names optim.lrr"):
        check_identity(BEFORE, now, ("optim.lrr",), {}, tmp_path)
    with pytest.raises(UserError, match="the number of steps was 6 and is 12 now; lora.alpha was") as error:
        check_identity(BEFORE, now, ("objective.beta",), {"the number of steps": (6, 12)}, tmp_path)
    assert "allow_change" not in str(error.value), "it would not help"
    assert check_identity({}, BEFORE, (), {}, tmp_path) == [], "a fact that is new to this version"


def test_every_key_decides_or_is_said_to_be_free():
    """A new key of a recipe decides until somebody says that it does not; what is said to be free is there."""
    keys = [key for key, _ in kinds()]
    for free in (*FREE, *TOLD_OTHERWISE):
        assert any(key == free or (free.endswith(".") and key.startswith(free)) for key in keys), free
    deciding = [key for key in keys if not key.startswith((*FREE, *TOLD_OTHERWISE))]
    assert {"optim.lr", "optim.betas", "objective.name", "objective.beta_text", "lora.alpha", "lora.targets"} <= set(
        deciding
    )
    assert {"model.tune", "model.paper_compat", "data.max_text_tokens", "data.block_shards"} <= set(deciding)


def save(checkpoints, step):
    def write(folder):
        (folder / "weights").write_text(str(step))
        return [folder / "weights"]

    return checkpoints.save(Position(step, 0, 8 * step, 42, 8, 20, "abc", 1, "lora", {}), write)


def test_what_lies_beyond_is_set_aside_and_never_outranks(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, World(), {"lora.alpha": 32.0})
    for step in (2, 4, 6):
        save(checkpoints, step)
    assert read_identity(tmp_path / "step-000006") == {"lora.alpha": 32.0}
    keep_all = Checkpoints(tmp_path, 0, World())
    assert keep_all.set_aside(4) == ["step-000006.abandoned"]
    assert (tmp_path / "latest").read_text() == "step-000004"
    assert keep_all.newest().name == "step-000004"
    save(checkpoints, 5)
    save(checkpoints, 6)
    assert [folder.name for folder in finished(tmp_path)] == ["step-000005", "step-000006"], "rotation goes by history"
    assert keep_all.set_aside(4) == ["step-000005.abandoned", "step-000006.abandoned-2"]
    assert (tmp_path / "step-000006.abandoned" / "weights").read_text() == "6"
    assert not (tmp_path / "latest").exists() and keep_all.newest() is None

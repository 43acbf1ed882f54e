"""Which reference a run may have, and the file that keeps one: found again, finished, and refused when it is not what it says."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from svco.basics.errors import UserError
from svco.model.provenance import weights_digest
from svco.objectives.reference import STRATEGIES, choose_reference
from svco.objectives.table import make_objective
from svco.recipe.config import ObjectiveConfig
from svco.run.cached_reference import ReferenceCache

SVCO, SFT = (make_objective(ObjectiveConfig(name=name)) for name in ("svco", "sft"))
FACTS = {"weights": "w", "text": "t", "dtype": "torch.float32", "pairs": "p"}


def test_defaults_and_every_allowed_combination():
    assert choose_reference("auto", "lora", SVCO) == "lockstep"
    assert choose_reference("auto", "full", SVCO) == "frozen-copy"
    assert choose_reference("auto", "lora", SFT) == choose_reference("auto", "full", SFT) == "none"
    for tune, strategies in STRATEGIES.items():
        for strategy in strategies:
            assert choose_reference(strategy, tune, SFT if strategy == "none" else SVCO) == strategy


@pytest.mark.parametrize(
    ("wanted", "tune", "objective"),
    [
        ("lockstep", "full", SVCO),
        ("frozen-copy", "lora", SVCO),
        ("none", "lora", SVCO),
        ("cached", "lora", SFT),
        ("x", "full", SVCO),
    ],
)
def test_anything_else_is_an_error_that_lists_what_is(wanted, tune, objective):
    with pytest.raises(UserError, match=r"model\.tune=lora: lockstep, cached, none; model\.tune=full: frozen-copy"):
        choose_reference(wanted, tune, objective)


def test_cache_is_finished_bit_by_bit(tmp_path):
    cache = ReferenceCache.open(tmp_path, FACTS, 5)
    assert cache.missing.tolist() == [0, 1, 2, 3, 4]
    rows = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    cache.put(np.array([0, 1, 2]), np.array([0, 2]), rows[[0, 2]])  # pair 1 could not be scored, and is not asked again
    cache.save(FACTS)
    again = ReferenceCache.open(tmp_path, FACTS, 5)
    assert again.missing.tolist() == [3, 4]
    again.put(again.missing, again.missing, rows[3:])
    again.save(FACTS)
    whole = ReferenceCache.open(tmp_path, FACTS, 5)
    assert not len(whole.missing)
    assert (whole.logps == np.where(np.arange(5)[:, None, None] == 1, 0, rows)).all()
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"], "nothing half-written is left"


def test_two_runs_that_compute_it_at_once_lose_nothing(tmp_path):
    """The slower one's save does not take away what the faster one has written."""
    rows = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    slow, fast = (ReferenceCache.open(tmp_path, FACTS, 4) for _ in range(2))
    fast.put(np.arange(4), np.arange(4), rows)
    fast.save(FACTS)
    slow.put(np.arange(2), np.arange(2), rows[:2])
    slow.save(FACTS)
    whole = ReferenceCache.open(tmp_path, FACTS, 4)
    assert not len(whole.missing)
    assert (whole.logps == rows).all()


def test_other_facts_are_another_file(tmp_path):
    cache = ReferenceCache.open(tmp_path, FACTS, 5)
    cache.put(np.arange(5), np.arange(5), np.ones((5, 2, 3), np.float32))
    cache.save(FACTS)
    for changed in FACTS:
        other = ReferenceCache.open(tmp_path, FACTS | {changed: "other"}, 5)
        assert other.path != cache.path
        assert len(other.missing) == 5


def test_damaged_and_mislabelled_files_are_refused(tmp_path):
    cache = ReferenceCache.open(tmp_path, FACTS, 5)
    cache.put(np.arange(5), np.arange(5), np.ones((5, 2, 3), np.float32))
    cache.save(FACTS)
    good = cache.path.read_bytes()
    with pytest.raises(UserError, match="made for .* and 5 pairs"):
        ReferenceCache.open(tmp_path, FACTS, 6)
    cache.path.write_bytes(good[:-7])
    with pytest.raises(UserError, match="cannot be read"):
        ReferenceCache.open(tmp_path, FACTS, 5)
    cache.path.write_bytes(good)
    with safe_open(cache.path, "np") as file:
        told = file.metadata()
    save_file(load_file(cache.path), cache.path, told | {"facts": '{"weights": "another model"}'})
    with pytest.raises(UserError, match="not what its name says.*another model"):
        ReferenceCache.open(tmp_path, FACTS, 5)


def test_weights_are_known_by_their_contents(tmp_path):
    base, memory = tmp_path / "base", tmp_path / "memory" / "digests.json"
    base.mkdir()
    (base / "config.json").write_text("{}")
    file = base / "model.safetensors"
    file.write_bytes(b"one")
    first = weights_digest(str(base), memory)
    assert weights_digest(str(base), memory) == weights_digest(str(base), tmp_path / "elsewhere.json") == first
    file.write_bytes(b"two")
    assert weights_digest(str(base), memory) != first, "the same name and size, other contents"
    told = memory.read_text()
    memory.write_text(told.replace(told[-20:-10], "0" * 10))
    file.write_bytes(b"one")
    assert weights_digest(str(base), memory) == first
    memory.write_text(json.dumps([]))
    assert weights_digest(str(base), memory) == first

"""``optim.recompute: auto``: what a layer keeps is measured once, and the memory given is filled."""

from types import SimpleNamespace

import pytest
import torch
from places import BASE

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.model.load import load_tuned
from svco.model.recompute import RecomputeDial, fill_memory, resolve_recompute, set_recompute
from svco.recipe.config import OptimConfig
from svco.recipe.read import load_recipe


def test_words_and_numbers():
    assert [resolve_recompute(word, 32) for word in ("all", "none", "auto", "0", "32", "7")] == [32, 0, None, 0, 32, 7]
    for wrong in ("33", "-1", "most", "1.5"):
        with pytest.raises(UserError, match="up to the model's 32"):
            resolve_recompute(wrong, 32)


def test_as_few_layers_as_fit():
    assert [fill_memory([2.0] * 10, free) for free in (-3.0, 0.0, 1.9, 2.0, 5.0, 19.9, 20.0, 1e9)] == [
        10,
        10,
        10,
        9,
        8,
        1,
        0,
        0,
    ]
    assert [fill_memory([5.0, 1.0, 5.0, 1.0], free) for free in (0.0, 1.0, 5.9, 6.0, 7.0, 12.0)] == [4, 3, 3, 2, 1, 0]


@pytest.fixture
def step(family, make_pairs):
    """(scorer, batch, the bytes that a forward pass keeps for its backward)."""
    tuned = load_tuned(
        load_recipe(None, [f"model.base={BASE}"]), family, torch.float32, "lockstep", torch.device("cpu")
    )
    batch, _ = Encode(family, PackedCollate())(make_pairs("val", 0, 3))

    def kept():
        weights = {p.untyped_storage().data_ptr() for p in tuned.scorer.parameters()}
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tuned.scorer.narrows = False  # every layer whole, so that one keeps its share of all
            tuned.scorer(batch)
        tuned.scorer.narrows = True
        return sum(size for pointer, (size, _) in storages.items() if pointer not in weights)

    return tuned.scorer, batch, kept


@pytest.mark.parametrize(("room", "recomputed"), [(0.5, 4), (1.5, 3), (2.5, 2), (4.5, 0)])
def test_auto_measures_a_layer_and_fills_the_memory(step, room, recomputed):
    scorer, batch, kept = step
    set_recompute(scorer.layers, 0)
    layer = kept() / 4  # embeddings and ends keep little beside the layers
    config = OptimConfig(
        activation_gb=room * layer / 1e9,
    )
    dial = RecomputeDial(scorer, config, World(), largest_pack=batch.llm_tokens)
    assert [twin.recompute for twin in scorer.layers] == [True] * 4, "the first step is the safe one"
    scorer(batch)[0].logps.sum().backward()
    said = dial.settle()
    assert said.startswith(f"recompute: {recomputed} of 4 layers")
    assert [twin.recompute for twin in scorer.layers] == [True] * recomputed + [False] * (4 - recomputed)
    assert scorer.saved.per_token * batch.llm_tokens == pytest.approx(layer, rel=0.1)
    assert dial.settle() == "", "decided once"


def test_on_a_gpu_the_first_steps_peak_is_forgotten(step):
    """Its own peak has loading in it, and no moments of Adam's yet: the second step's is what counts."""
    scorer, batch, _ = step
    gpu = SimpleNamespace(device=torch.device("cuda"), gather=lambda value: [value])
    told = []

    class Dial(RecomputeDial):
        def _forget_peak(self):
            told.append("forget")
            self._peak_is_old = False

        def _free_bytes(self):
            told.append("read")
            return 1.5 * scorer.saved.per_token * batch.llm_tokens

    dial = Dial(scorer, OptimConfig(), gpu, batch.llm_tokens)
    said = []
    for _ in range(3):
        scorer(batch)[0].logps.sum().backward()
        said.append(dial.settle())
    assert told == ["forget", "read"]
    assert (said[0], said[2]) == ("", "")
    assert said[1].startswith("recompute: 3 of 4 layers")


def test_what_could_not_be_measured_is_recomputed(step):
    dial = RecomputeDial(step[0], OptimConfig(activation_gb=100.0), World(), 1000)
    assert "could not be measured" in dial.settle()
    assert all(twin.recompute for twin in step[0].layers)


def test_a_cpu_without_a_limit_recomputes_nothing(step):
    dial = RecomputeDial(step[0], OptimConfig(), World(), 1000)
    assert not dial.open
    assert not any(twin.recompute for twin in step[0].layers)

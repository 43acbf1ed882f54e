"""The checksum of gathered weights: right ones pass, wrong ones do not."""

import pytest
import torch
from places import ROOT

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.engine import loading
from svco.engine.gathered import QUANTISED, compare, distance
from svco.recipe.ds_config import fill, read_ds_config
from svco.recipe.read import load_recipe


def blocks_of_8_bits(weights, size=256):
    """What quantised gathering makes of ``weights``: symmetric 8-bit blocks."""
    blocks = weights.view(-1, size)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / scale).round() * scale).view(-1)


@pytest.fixture
def weights():
    return torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 0.02


def test_exact_weights_need_no_tolerance(weights):
    compare({"w": (weights, weights.clone())}, 0.0, World())
    for rank in (0, 1):
        assert distance(weights, weights[2048 * rank : 2048 * (rank + 1)], rank) == 0
    assert distance(weights, weights[2048:], 0) > 1, "a shard of another place"
    last = torch.cat([weights[2100:], torch.full((104,), 7.0)])
    assert distance(weights, last, 1) == 0, "the last shard's padding does not count"
    with pytest.raises(UserError, match=r"gathered of w are .*% off the shard of rank 0"):
        compare({"w": (weights + 1e-6, weights)}, 0.0, World())


def test_quantised_weights_pass_and_misplaced_ones_do_not(weights):
    gathered = blocks_of_8_bits(weights)
    assert 0.002 < distance(gathered, weights, 0) < QUANTISED / 5
    compare({"w": (gathered, weights)}, QUANTISED, World())
    wrong = {
        "shifted": gathered.roll(1),
        "halves exchanged": torch.cat([gathered[2048:], gathered[:2048]]),
        "a block of another scale": torch.cat([gathered[:256] * 4, gathered[256:]]),
        "empty": torch.zeros_like(weights),
        "not a number": torch.where(torch.arange(4096) == 5, torch.nan, gathered),
    }
    for how, values in wrong.items():
        with pytest.raises(UserError, match="zero_quantized_weights"):
            compare({how: (values, weights)}, QUANTISED, World())


def test_small_adapters_in_a_block_with_large_weights_are_caught(weights):
    """Quantised together, a freshly trained adapter becomes 0: its steps would be lost without an error."""
    adapter = torch.full((128,), 1e-5)
    together = blocks_of_8_bits(torch.cat([weights[:128], adapter]))
    compare({"base": (together[:128], weights[:128])}, QUANTISED, World())
    with pytest.raises(UserError, match=r"gathered of adapter are 100\.0% off"):
        compare({"adapter": (together[128:], adapter)}, QUANTISED, World())
    zeros = torch.zeros(128)
    compare({"untrained": (zeros, zeros)}, QUANTISED, World())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_quantised_gathers_are_refused_without_a_gpu():
    full = load_recipe(None, ["model.tune=full"])
    shipped = fill(read_ds_config(ROOT / "ds_configs" / "zeropp.json"), full, 2, "float32")
    with (
        pytest.raises(UserError, match=r"zero_quantized_weights, zero_quantized_gradients, which are CUDA"),
        loading(shipped),
    ):
        pass

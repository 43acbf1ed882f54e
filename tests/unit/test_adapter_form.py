"""What an adapter is beside its tensors: whose base it changes, and how strong it is."""

import json

import pytest

from svco.basics.errors import UserError
from svco.model.adapter_files import ADAPTER_CONFIG, read_form
from svco.model.lora import add_adapters
from svco.recipe.config import LoraConfig

PLAIN = {"peft_type": "LORA", "lora_alpha": 32, "r": 8, "init_lora_weights": True}


def adapter(folder, **changes):
    (folder / ADAPTER_CONFIG).write_text(json.dumps(PLAIN | changes))
    return folder


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "loftq"])
def test_an_adapter_of_a_changed_base_is_refused(tmp_path, init):
    with pytest.raises(UserError, match=f"goes with a base that {init} changed"):
        read_form(adapter(tmp_path, init_lora_weights=init))


@pytest.mark.parametrize("alpha", ["NaN", "0", "-8", "1e999"])
def test_a_strength_is_a_number_above_0(tmp_path, alpha):
    text = (adapter(tmp_path) / ADAPTER_CONFIG).read_text().replace("32", alpha)
    (tmp_path / ADAPTER_CONFIG).write_text(text)
    with pytest.raises(UserError, match="must be a number above 0|NaN is no JSON number"):
        read_form(tmp_path)


@pytest.mark.parametrize(
    ("changes", "alpha", "set_to"),
    [
        ({}, 8, "lora.alpha=32"),
        ({"use_rslora": True, "lora_alpha": 8}, 8, "lora.alpha=22.6274"),
        ({"lora_alpha": 1}, 2, "lora.alpha=1"),
    ],
)
def test_a_warm_start_at_another_strength_is_refused(tmp_path, changes, alpha, set_to):
    """Before the model is touched, with what to set."""
    config = LoraConfig(rank=8, alpha=alpha, init_from=str(adapter(tmp_path, **changes)))
    with pytest.raises(UserError, match=set_to):
        add_adapters(None, config, "model", ())


def test_one_of_the_same_strength_goes_on_to_its_tensors(tmp_path):
    config = LoraConfig(rank=8, alpha=32, init_from=str(adapter(tmp_path)))
    with pytest.raises(AttributeError):  # there is no model here to put them on
        add_adapters(None, config, "model", ())

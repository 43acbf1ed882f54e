"""Adapters: only what is declared is trained, and off means off."""

import warnings

import oracle
import pytest
import torch
from places import BASE

from svco.basics.errors import UserError
from svco.model.adapter_files import read_adapter
from svco.model.load import load_tuned
from svco.model.lora import adapter_switch
from svco.model.subject import load_subject
from svco.recipe.read import load_recipe


def tuned(family, *overrides):
    config = load_recipe(None, [f"model.base={BASE}", "lora.rank=4", "lora.alpha=8", *overrides])
    strategy = {"lora": "lockstep", "full": "frozen-copy"}[config.model.tune]
    return load_tuned(config, family, torch.float32, strategy, torch.device("cpu"))


@pytest.mark.parametrize("whole", [None, ["multi_modal_projector"]])
def test_off_is_pefts_own_off_and_leaves_requires_grad_alone(family, tmp_path, whole):
    oracle.make_adapter(BASE, tmp_path, whole=whole)
    model = tuned(family, f"lora.init_from={tmp_path}", f"model.train_projector={'true' if whole else 'false'}")
    ids = torch.tensor([[0, *[family.image_token_id] * 36, 5, 6, 7]])
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    # Plain forward passes here: no packed row, so no packed attention.
    model.policy.set_attn_implementation("sdpa")

    def logits():
        with torch.no_grad():
            return model.policy(input_ids=ids, pixel_values=pixels).logits

    before = {name: p.requires_grad for name, p in model.policy.named_parameters()}
    on = logits()
    with adapter_switch(model.policy)():
        off = logits()
        assert {name: p.requires_grad for name, p in model.policy.named_parameters()} == before
    with model.wrapped.disable_adapter():
        assert torch.equal(off, logits())
    assert torch.equal(on, logits())
    assert not torch.allclose(on, off)
    _, base = oracle.load(BASE, torch.float32)
    with torch.no_grad():
        assert torch.equal(off, base(input_ids=ids, pixel_values=pixels).logits)


def test_only_the_declared_parameters_are_trained(family):
    lora = tuned(family).trainable
    assert len(lora) == 4 * 7 * 2
    assert all("language_model" in name and ".lora_" in name for name in lora)
    with_projector = tuned(family, "model.train_projector=true").trainable.keys() - lora.keys()
    assert {name.split(".")[1] for name in with_projector} == {"multi_modal_projector"}
    assert len(with_projector) == 4
    full = tuned(family, "model.tune=full")
    assert not any("vision_tower" in name for name in full.trainable)
    assert any("multi_modal_projector" in name for name in full.trainable)
    assert full.reference is not None
    assert not any(p.requires_grad for p in full.reference.parameters())


def test_adapters_are_put_on_without_a_warning(family, tmp_path):
    """What peft and transformers tell each other is not for people; a filter of pytest's own would hide it here."""
    oracle.make_adapter(BASE, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(family)
        load_subject(str(BASE), str(tmp_path), device=torch.device("cpu"))


def test_unfit_adapters_are_refused_not_ignored(family, tmp_path):
    from safetensors.torch import load_file, save_file

    oracle.make_adapter(BASE, tmp_path)
    model, file = tuned(family), tmp_path / "adapter_model.safetensors"
    stored = load_file(file)
    odd_names = {k.replace("language_model", "text_model"): v for k, v in stored.items()}
    save_file(odd_names, file)
    with pytest.raises(UserError, match="unknown here.*missing"):
        read_adapter(tmp_path, model.wrapped)
    # The names of transformers 4 are read as well; peft alone would load nothing and say nothing.
    old_names = {k.replace("model.language_model", "language_model.model"): v for k, v in stored.items()}
    save_file(old_names, file)
    read = read_adapter(tmp_path, model.wrapped)
    assert all(
        read[k.removeprefix("base_model.model.").replace("weight", "default.weight")].equal(v)
        for k, v in stored.items()
    )
    save_file(stored, file)
    with pytest.raises(UserError, match=r"lora\.rank"):
        tuned(family, "lora.rank=8", f"lora.init_from={tmp_path}")
    with pytest.raises(UserError, match="No adapter can be loaded"):
        tuned(family, f"lora.init_from={tmp_path / 'none'}")
    with pytest.raises(UserError, match="wq_proj"):
        tuned(family, "lora.targets=[wq_proj]")

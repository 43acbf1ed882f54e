"""Any base with any LoRA adapter: scored as peft runs it, asked what is scored, and refused when something does not fit."""

import io
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from places import BASE
from safetensors.torch import load_file, save_file
from tiny_families import BASES, make_base

from svco.basics.errors import UserError
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate, Tree, pack
from svco.commands.evaluation.generation import generate
from svco.model.subject import load_subject
from svco.model.weight_names import PEFT_PREFIX
from svco.tiny_world.contrast import world_pairs

CPU = torch.device("cpu")


def subject(base, adapter=None, **how):
    return load_subject(str(base), adapter and str(adapter), device=CPU, progress=False, **how)


def scores(of):
    batch, _ = Encode(of.family, PackedCollate())(list(world_pairs("val", 0, 3)))
    with torch.no_grad():
        return of.scorer(batch)[0].logps


@pytest.fixture(scope="module")
def plain():
    return subject(BASE)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """An adapter as somebody else's trainer saves one: a pattern, two ranks, rank-stabilised; and its base merged."""
    folder = tmp_path_factory.mktemp("foreign")
    torch.manual_seed(1)
    of = subject(BASE)
    names = r".*language_model\.layers\.[01]\..*(q_proj|down_proj)"
    config = LoraConfig(
        r=4, lora_alpha=8, rank_pattern={"down_proj": 2}, use_rslora=True, target_modules=names, init_lora_weights=False
    )
    peft = get_peft_model(of.policy, config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.mul_(3)
    peft.save_pretrained(folder / "adapter")
    merged = PeftModel.from_pretrained(subject(BASE).policy, folder / "adapter").merge_and_unload()
    return folder / "adapter", merged


def test_a_foreign_adapter_scores_as_its_merged_base(plain, foreign):
    folder, merged = foreign
    tuned, expected = subject(BASE, folder), subject(BASE)
    expected.policy.load_state_dict(merged.state_dict())
    assert torch.allclose(scores(tuned), scores(expected), atol=2e-4)
    assert (scores(tuned) - scores(plain)).abs().max() > 0.01
    assert not any(parameter.requires_grad for parameter in tuned.policy.parameters())
    assert tuned.name == foreign[0].parent.name and plain.name == "tiny_llava"


def test_an_adapter_in_the_names_of_transformers_4_is_the_same(foreign, tmp_path):
    tensors = load_file(foreign[0] / "adapter_model.safetensors")
    old = {
        name.replace(f"{PEFT_PREFIX}model.language_model.", f"{PEFT_PREFIX}language_model.model."): value
        for name, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((foreign[0] / "adapter_config.json").read_bytes())
    assert torch.equal(scores(subject(BASE, tmp_path)), scores(subject(BASE, foreign[0])))


def _altered(folder, target, change):
    """A copy of an adapter with ``change`` made to its tensors."""
    save_file(change(load_file(folder / "adapter_model.safetensors")), target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    return target


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda found: {name.replace("layers", "blocks"): v for name, v in found.items()},
            "fits nothing in this model",
        ),
        (lambda found: dict(list(found.items())[1:]), "1 are missing"),
        (
            lambda found: found | {f"{PEFT_PREFIX}model.nowhere.lora_A.weight": torch.ones(4, 4)},
            "1 of its tensors are unknown",
        ),
    ],
    ids=["nothing fits", "a tensor is missing", "a tensor too many"],
)
def test_an_adapter_fits_whole_or_not_at_all(foreign, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        subject(BASE, _altered(foreign[0], tmp_path, change))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning:peft.tuners")  # done on purpose
def test_what_is_no_model_and_no_adapter_is_said(tmp_path):
    with pytest.raises(UserError, match="neither a folder here nor a model the hub gives us"):
        subject("nobody/nothing")
    with pytest.raises(UserError, match="No adapter can be loaded"):
        subject(BASE, tmp_path)
    get_peft_model(subject(BASE).policy, LoraConfig(target_modules=["lm_head"])).save_pretrained(
        tmp_path, save_embedding_layers=False
    )
    with pytest.raises(UserError, match="language-model head"):
        subject(BASE, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    with pytest.raises(UserError, match="Merge it"):
        subject(BASE, tmp_path)


@pytest.mark.parametrize("name", BASES)
def test_the_model_is_asked_what_is_scored(name, tmp_path):
    """Same prompt ids as the scorer's prefixes; the first word of the answer is what the scorer finds likeliest of all tokens;
    and neighbours in a padded batch change nothing."""
    make_base(name, tmp_path)
    of = subject(tmp_path)
    pairs = list(world_pairs("val", 0, 3))
    images = [Image.open(io.BytesIO(pair.images[0])).convert("RGB") for pair in pairs]
    images[1] = images[1].resize((90, 40))
    prompts = [of.family.prompt(pair.text, image.size) for pair, image in zip(pairs, images)]
    for pair, image, prompt in zip(pairs, images, prompts):
        assert np.array_equal(of.family.encode_text(pair.text, (image.size, image.size)).prefixes[0], prompt)
    blind = of.family.prompt(pairs[0].text, None)
    assert np.array_equal(of.family.encode_text(pairs[0].text, (images[0].size, images[0].size)).prefixes[2], blind)
    mixed = [prompts[0], blind, *prompts[1:]], [images[0], None, *images[1:]]
    together = generate(of, *mixed, 5)
    assert together == [generate(of, [prompt], [image], 5)[0] for prompt, image in zip(*mixed)]
    assert len(set(together)) > 1
    vocabulary = of.policy.config.get_text_config().vocab_size
    slots = -(-vocabulary // 6)
    branches = tuple((np.array([token]), token) for token in range(vocabulary))
    for prompt, image, first in zip(prompts, images, generate(of, prompts, images, 1)):
        tree = Tree(prompt, branches, of.family.positions(prompt, image.size))
        row = pack([tree], of.family.pixels([image]), [[1, 1]] * slots, [1.0] * slots, of.family)
        with torch.no_grad():
            likeliest = of.scorer(row)[0].logps.flatten()[:vocabulary].argmax()
        assert of.family.decode([int(likeliest)]) == first


def test_paper_compat_ends_the_prompt_where_the_authors_do(tmp_path):
    """LLaVA-1.5's with the end-of-sequence token, Interleave's not; what is scored has no such token."""
    text, size = next(iter(world_pairs("val", 0, 1))).text, (48, 48)
    for name, ends in (("llava15", True), ("interleave", False)):
        make_base(name, tmp_path / name)
        ours, theirs = (subject(tmp_path / name, paper_compat=compat).family for compat in (False, True))
        more = [ours.tokenizer.eos_token_id] if ends else []
        assert theirs.prompt(text, size).tolist() == [*ours.prompt(text, size).tolist(), *more]
        assert theirs.encode_text(text, (size, size)).prefixes[0].tolist() == ours.prompt(text, size).tolist()


def test_answering_leaves_the_scorer_as_it_was(plain):
    before = scores(plain)
    with plain.answering() as model:
        assert model.config.get_text_config()._attn_implementation == "sdpa"
    assert model.config.get_text_config()._attn_implementation == "svco_sdpa"
    assert torch.equal(scores(plain), before)

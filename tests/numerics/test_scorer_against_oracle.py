"""The product against S-VCO from scratch, through the whole model, values and gradients, LoRA and full."""

import io

import oracle
import pytest
import torch
from peft import PeftModel
from PIL import Image
from places import BASE

from svco.basics.views import BLIND, CLASH, CORRUPT, MATCH, cells_to_evaluate
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.data.corruption import Corruptions, corrupt
from svco.families import load_family
from svco.model.load import load_tuned
from svco.model.recompute import resolve_recompute, set_recompute
from svco.objectives.reference import choose_reference
from svco.objectives.table import Objective, make_objective
from svco.objectives.terms import BoundTerm
from svco.recipe.config import CorruptConfig
from svco.recipe.read import load_recipe

PAIRS = 5
RECIPE = [f"model.base={BASE}", "lora.rank=4", "lora.alpha=8", "optim.recompute=none"]


@pytest.fixture(scope="module")
def pairs():
    from svco.tiny_world.contrast import world_pairs

    return list(world_pairs("val", 3, PAIRS))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    oracle.make_adapter(BASE, folder)
    return folder


@pytest.fixture(scope="module")
def expected(pairs, adapter):
    return by_the_oracle(BASE, pairs, adapter)


def by_the_oracle(base, pairs, adapter):
    """Log-probabilities of policy and reference, loss and gradients, in float64."""
    processor, model = oracle.load(base)
    wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=True).double()
    with torch.no_grad(), wrapped.disable_adapter():
        reference = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in pairs])
    policy = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in pairs])
    loss = sum(oracle.svco(p, r) for p, r in zip(policy, reference)) / PAIRS
    loss.backward()
    gradients = {
        name.removeprefix("base_model.model."): p.grad for name, p in wrapped.named_parameters() if p.requires_grad
    }
    return policy.detach(), reference, loss.item(), gradients


def text_first(base, folder):
    """The base with the image behind the text of the user's turn, a head of its own and as many key heads as query heads,
    its image features taken from two layers of the tower: everything random."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    processor, config = AutoProcessor.from_pretrained(base), AutoConfig.from_pretrained(base)
    processor.chat_template = (
        "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
        "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    processor.save_pretrained(folder)
    config.text_config.num_key_value_heads = config.text_config.num_attention_heads
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    config.vision_feature_layer = [-2, -1]
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


def product(pairs, family, dtype, *overrides):
    """The same by the product: (policy Scores, reference Scores, loss, gradients by name)."""
    config = load_recipe(None, [*RECIPE, *overrides])
    strategy = choose_reference("auto", config.model.tune, make_objective(config.objective))
    tuned = load_tuned(config, family, dtype, strategy, torch.device("cpu"))
    tuned.scorer.to(dtype)
    if dtype == torch.float64:
        oracle.exact_norms(tuned.scorer)
    set_recompute(tuned.scorer.layers, resolve_recompute(config.optim.recompute, len(tuned.scorer.layers)))
    batch, bad = Encode(family, PackedCollate())(pairs)
    assert not bad
    torch.manual_seed(0)  # of dropout
    policy, reference = tuned.scorer(batch)
    losses, _ = make_objective(config.objective)(policy, reference)
    losses.mean().backward()
    return policy, reference, losses.mean().item(), {name: p.grad for name, p in tuned.trainable.items()}


def relative(ours, theirs):
    return ((ours.double() - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(
    ("dtype", "logp_tolerance", "gradient_tolerance"), [(torch.float64, 1e-9, 1e-9), (torch.float32, 1e-5, 1e-4)]
)
def test_lora(pairs, family, adapter, expected, dtype, logp_tolerance, gradient_tolerance):
    policy, reference, loss, gradients = product(pairs, family, dtype, f"lora.init_from={adapter}")
    assert relative(policy.logps.detach(), expected[0]) <= logp_tolerance
    assert relative(reference.logps, expected[1]) <= logp_tolerance
    assert loss == pytest.approx(expected[2], rel=logp_tolerance)
    assert abs(loss - oracle.FOUR_LN_TWO) > 1e-3, "the adapter must do something, or this test shows nothing"
    assert gradients.keys() == expected[3].keys()
    for name, gradient in gradients.items():
        assert expected[3][name].norm() > 0, name
        assert relative(gradient, expected[3][name]) <= gradient_tolerance, name


def test_image_behind_the_text_no_grouped_queries_a_head_of_its_own(pairs, tmp_path):
    base = text_first(BASE, tmp_path / "base")
    oracle.make_adapter(base, tmp_path / "adapter")
    family = load_family(str(base), 128)
    prefix = family.encode_text(pairs[0].text, ((48, 48), (48, 48))).prefixes[0].tolist()
    assert prefix.index(family.image_token_id) > 5, "some words come first"
    wanted = by_the_oracle(base, pairs, tmp_path / "adapter")
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        policy, reference, _, gradients = product(
            pairs, family, dtype, f"model.base={base}", f"lora.init_from={tmp_path / 'adapter'}"
        )
        assert relative(policy.logps.detach(), wanted[0]) <= min(tolerance, 1e-5)
        assert relative(reference.logps, wanted[1]) <= min(tolerance, 1e-5)
        assert gradients.keys() == wanted[3].keys()
        for name, gradient in gradients.items():
            assert relative(gradient, wanted[3][name]) <= tolerance, name


def test_negative_control_another_adapter_is_seen(pairs, family, expected, tmp_path):
    oracle.make_adapter(BASE, tmp_path, seed=4)
    policy, reference, _, _ = product(pairs, family, torch.float32, f"lora.init_from={tmp_path}")
    assert relative(policy.logps.detach(), expected[0]) > 1e-3
    assert relative(reference.logps, expected[1]) <= 1e-5, "the reference is the base, whatever the adapter"


def test_fresh_adapter_starts_at_four_ln_two(pairs, family):
    policy, reference, loss, gradients = product(pairs, family, torch.float32)
    assert torch.equal(policy.logps, reference.logps)
    assert loss == pytest.approx(oracle.FOUR_LN_TWO, abs=1e-6)
    assert all(gradient.norm() == 0 for name, gradient in gradients.items() if "lora_A" in name)
    assert all(gradient.norm() > 0 for name, gradient in gradients.items() if "lora_B" in name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("projector", [False, True])
def test_full_and_projector_gradients(pairs, family, projector, dtype, tolerance):
    """Full fine-tuning, and LoRA with the projector trained: gradients of every trained tensor at the starting point. With
    equal β the blind view would have none there."""
    processor, model = oracle.load(BASE)
    model.model.vision_tower.requires_grad_(False)
    reference = torch.stack([oracle.pair_logps(model, processor, pair) for pair in pairs]).detach()
    policy = torch.stack([oracle.pair_logps(model, processor, pair) for pair in pairs])
    (sum(oracle.svco(p, r, reject=0.3) for p, r in zip(policy, reference)) / PAIRS).backward()
    overrides = ["objective.beta_reject=0.3", "model.train_projector=true" if projector else "model.tune=full"]
    scores, _, loss, gradients = product(pairs, family, dtype, *overrides)
    assert relative(scores.logps.detach(), policy.detach()) <= min(tolerance, 1e-5)
    assert loss == pytest.approx(oracle.FOUR_LN_TWO, abs=1e-6)
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    compared = 0
    for name, gradient in gradients.items():
        plain = name.replace("modules_to_save.default.", "")
        if plain in wanted:
            assert relative(gradient, wanted[plain]) <= tolerance, name
            compared += 1
    assert compared == (4 if projector else len(wanted))


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_recomputation_changes_nothing_at_any_place_of_the_dial(pairs, family, adapter, tune):
    start = [f"lora.init_from={adapter}"] if tune == "lora" else ["model.tune=full"]
    plain = product(pairs, family, torch.float32, *start)
    for count in (1, 2, 3, 4):
        recomputed = product(pairs, family, torch.float32, *start, f"optim.recompute={count}")
        assert recomputed[2] == plain[2]
        for name, gradient in recomputed[3].items():
            assert torch.equal(gradient, plain[3][name]), name


def test_dropout_is_recomputed_as_it_was(pairs, family, adapter):
    dropped = [f"lora.init_from={adapter}", "lora.dropout=0.5"]
    kept, recomputed = (product(pairs, family, torch.float32, *dropped, f"optim.recompute={n}") for n in (0, 4))
    assert kept[2] != product(pairs, family, torch.float32, dropped[0])[2], "dropout does something"
    for name, gradient in recomputed[3].items():
        assert torch.equal(gradient, kept[3][name]), name


def test_compiled_layers_compute_the_same_and_are_compiled_once(pairs, family, adapter, expected):
    torch._dynamo.reset()
    start = [f"lora.init_from={adapter}", "model.compile=true"]
    policy, reference, loss, gradients = product(pairs, family, torch.float32, *start, "optim.recompute=2")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert relative(policy.logps.detach(), expected[0]) <= 1e-5
    assert relative(reference.logps, expected[1]) <= 1e-5
    assert loss == pytest.approx(expected[2], rel=1e-5)
    for name, gradient in gradients.items():
        assert relative(gradient, expected[3][name]) <= 1e-4, name
    config = load_recipe(None, [*RECIPE, *start])
    scorer = load_tuned(config, family, torch.float32, "lockstep", torch.device("cpu")).scorer
    compiled = []
    for count in (2, 3, 1, 5, 4):
        scorer(Encode(family, PackedCollate())(pairs[:count])[0])[0].logps.sum().backward()
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled[1] == compiled[-1], "rows of any length run what was compiled for the first ones"


CORRUPT_TERMS = (
    ("text", ((0, MATCH), 1.0), ((1, CLASH), -1.0)),
    ("image", ((0, MATCH), 1.0), ((0, CORRUPT), -1.0)),
    ("own", ((1, CORRUPT), 1.0), ((1, BLIND), -1.0)),
)
"""Cells of all four views, the corrupted image of both sides among them."""


def reads_corrupt():
    return Objective(
        "mine", tuple(BoundTerm(key, tuple(cells), 1.0, "preference", 0.3) for key, *cells in CORRUPT_TERMS)
    )


def corrupted(pair, config):
    """The images of ``pair`` after :func:`corrupt`, without loss."""
    made = []
    for side, data in enumerate(pair.images):
        stream = io.BytesIO()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        corrupt(image, pair.text.key, side, config).save(stream, "PNG")
        made.append(stream.getvalue())
    return made


@pytest.mark.parametrize("kind", ["crop", "noise"])
def test_the_corrupt_view_is_another_forward_pass(pairs, family, adapter, kind):
    """Log-probabilities under the corrupted image, and the gradients of an objective that reads them, in float64."""
    processor, model = oracle.load(BASE)
    wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=True).double()
    how = CorruptConfig(kind, seed=5)

    def four(pair):
        text, images = pair.text, corrupted(pair, how)
        fourth = [oracle.sequence_logp(wrapped, processor, text.query, text.responses[s], images[s])[0] for s in (0, 1)]
        return torch.cat([oracle.pair_logps(wrapped, processor, pair), torch.stack(fourth)[:, None]], dim=1)

    with torch.no_grad(), wrapped.disable_adapter():
        reference = torch.stack([four(pair) for pair in pairs])
    policy = torch.stack([four(pair) for pair in pairs])
    delta = policy - reference
    wanted = 0.0
    for _, *cells in CORRUPT_TERMS:
        margin = 0.3 * sum(factor * delta[:, side, view] for (side, view), factor in cells)
        wanted = wanted + torch.log1p(torch.exp(-margin)).mean()
    wanted.backward()
    gradients = {n.removeprefix("base_model.model."): p.grad for n, p in wrapped.named_parameters() if p.requires_grad}

    objective = reads_corrupt()
    config = load_recipe(None, [*RECIPE, f"lora.init_from={adapter}"])
    tuned = load_tuned(config, family, torch.float64, "lockstep", torch.device("cpu"))
    oracle.exact_norms(tuned.scorer.to(torch.float64))
    cells = objective.cells
    batch, bad = Encode(family, PackedCollate(cells), Corruptions.of(cells, how))(pairs)
    assert not bad
    ours, base = tuned.scorer(batch)
    loss = objective(ours, base)[0].mean()
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert ours.logps.shape == (PAIRS, 2, 4)
    read = tuple(zip(*sorted(cells)))
    for scores, expected_logps in ((ours, policy), (base, reference)):
        mine = scores.logps.detach()[:, read[0], read[1]]
        assert relative(mine, expected_logps.detach()[:, read[0], read[1]]) <= 1e-9
    corrupted_apart = (policy[:, :, CORRUPT] - policy[:, :, MATCH]).abs().min()
    assert corrupted_apart > 1e-3, "a corrupted image is read differently, or this test shows nothing"
    for name, parameter in tuned.trainable.items():
        assert gradients[name].norm() > 0, name
        assert relative(parameter.grad, gradients[name]) <= 1e-9, name
    with torch.no_grad():  # all eight cells, as an evaluation reads them
        everything = cells_to_evaluate(cells)
        batch, _ = Encode(family, PackedCollate(everything), Corruptions.of(everything, how))(pairs)
        assert relative(tuned.scorer(batch)[0].logps, policy.detach()) <= 1e-9

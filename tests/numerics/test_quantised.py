"""A base in 4 bits against plain transformers and peft on the same, by bitsandbytes' kernels for processors."""

import shutil

import oracle
import pytest
import tiny_families
import torch
from peft import PeftModel
from places import BASE, ROOT
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.commands.plan.architecture import of_config
from svco.commands.plan.workload import Tuning
from svco.export import Wanted, export
from svco.families import architecture, check_supported, load_family
from svco.model.load import load_base, load_tuned
from svco.model.score import score
from svco.model.subject import load_subject
from svco.objectives.table import make_objective
from svco.recipe.read import load_recipe
from svco.run.train import Launch, run
from svco.scores.kept import KeptScores
from svco.tiny_world.contrast import world_pairs

bitsandbytes = pytest.importorskip("bitsandbytes", reason="NOT TESTED: pip install 'svco[test]' (bitsandbytes)")
Linear4bit = bitsandbytes.nn.Linear4bit
CPU = torch.device("cpu")
PAIRS = 3
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
KEPT = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


@pytest.fixture(scope="module")
def pairs():
    return list(world_pairs("val", 3, PAIRS))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """With a projector of its own."""
    folder = tmp_path_factory.mktemp("adapter")
    oracle.make_adapter(BASE, folder, whole=["multi_modal_projector"])
    return folder


def by_transformers(pairs, adapter, quantised=True):
    """Log-probabilities of policy and reference, and gradients, by plain transformers and peft in float32."""
    processor, config = oracle.load(BASE, torch.float32)[0], None
    if quantised:
        config = BitsAndBytesConfig(
            **NF4,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=KEPT,
        )
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32, quantization_config=config)
    wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=True).train()  # see test_a_validation_…
    with torch.no_grad(), wrapped.disable_adapter():
        reference = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in pairs])
    policy = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in pairs])
    (sum(oracle.svco(p, r) for p, r in zip(policy, reference)) / PAIRS).backward()
    named = {name.removeprefix("base_model.model."): p for name, p in wrapped.named_parameters() if p.requires_grad}
    return policy.detach(), reference, {name: p.grad for name, p in named.items()}


@pytest.fixture(scope="module")
def expected(pairs, adapter):
    return by_transformers(pairs, adapter)


def tuned_in_4_bits(family, adapter, dtype=torch.float32):
    recipe = [f"model.base={BASE}", "lora.rank=4", "lora.alpha=8", "model.quantise=nf4", f"lora.init_from={adapter}"]
    return load_tuned(load_recipe(None, [*recipe, "model.train_projector=true"]), family, dtype, "lockstep", CPU)


def learned(tuned, family, pairs):
    """(policy Scores, reference Scores, gradients by name)."""
    batch, bad = Encode(family, PackedCollate())(pairs)
    assert not bad
    tuned.scorer.train()
    for parameter in tuned.trainable.values():
        parameter.grad = None
    policy, reference = tuned.scorer(batch)
    make_objective(load_recipe(None).objective)(policy, reference)[0].mean().backward()
    return policy, reference, {name: p.grad for name, p in tuned.trainable.items()}


def relative(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def test_adapters_on_is_peft_and_the_reference_is_adapters_off(pairs, family, adapter, expected):
    """Another order of the same float32 products: 1e-5 of the log-probabilities, 1e-4 of a gradient."""
    policy, reference, gradients = learned(tuned_in_4_bits(family, adapter), family, pairs)
    assert relative(policy.logps.detach(), expected[0]) <= 1e-5
    assert relative(reference.logps, expected[1]) <= 1e-5
    assert gradients.keys() == expected[2].keys()
    assert sum("multi_modal_projector" in name for name in gradients) == 4
    for name, gradient in gradients.items():
        assert expected[2][name].norm() > 0, name
        assert relative(gradient, expected[2][name]) <= 1e-4, name
    # The control: the base in full is another model, by what four bits cost.
    in_full = by_transformers(pairs, adapter, quantised=False)
    assert relative(policy.logps.detach(), in_full[0]) > 1e-3
    assert relative(reference.logps, in_full[1]) > 1e-3


def test_a_validation_takes_no_gradient_away(pairs, family, adapter):
    """On processors with bfloat16 instructions bitsandbytes rewrites weights outside of training, for a kernel without a backward
    pass; the control lets it."""
    tuned = tuned_in_4_bits(family, adapter, torch.bfloat16)
    assert {p.dtype for p in tuned.trainable.values()} == {torch.bfloat16}, "adapters take the base's dtype"
    before = learned(tuned, family, pairs)[2]
    batch, _ = Encode(family, PackedCollate())(pairs)

    def validate():
        tuned.scorer.eval()
        with torch.no_grad():
            tuned.scorer(batch)

    validate()
    after = learned(tuned, family, pairs)[2]
    assert all(after[name].equal(before[name]) for name in before)
    if bitsandbytes.functional.has_avx512bf16():
        for module in tuned.policy.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = True
        validate()
        with pytest.warns(UserWarning, match="autograd kernel was not registered"):
            lost = learned(tuned, family, pairs)[2]
        assert sum(relative(lost[name], before[name]) > 0.1 for name in before) > len(before) / 2


@pytest.mark.parametrize("name", tiny_families.BASES)
def test_every_family_has_its_decoder_layers_in_4_bits_and_nothing_else(name, tmp_path):
    base = str(tiny_families.make_base(name, tmp_path))
    stored = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).state_dict()
    family = architecture(AutoConfig.from_pretrained(base).model_type)
    model = load_base(base, load_family(base, 128), torch.float32, "sdpa", "nf4", CPU)
    packed = {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    linear = {module for module in family.parts(model).layers.modules() if isinstance(module, torch.nn.Linear)}
    assert linear == {model.get_submodule(name) for name in packed}
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in packed:
            assert parameter.equal(stored[name]), name
    # What the plan says of their bytes; beside the weights bitsandbytes keeps two tables a matrix.
    states = [model.get_submodule(name).weight for name in packed]
    held = sum(w.nbytes + w.quant_state.absmax.nbytes + w.quant_state.state2.absmax.nbytes for w in states)
    a = of_config(model.config)
    full, four = (Tuning(False, 4, (), False, "lockstep", 4, quantised) for quantised in (False, True))
    assert 4 * a.layers * a.layer_linear - held == pytest.approx(full.base(a) - four.base(a), rel=2e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 4 steps on a base in 4 bits, once at a stretch and once stopped after two."""
    root = tmp_path_factory.mktemp("runs")
    shards = ROOT / "data_shards"
    recipe = [
        f"model.base={BASE}", "model.quantise=nf4", "optim.lr=3e-3", "optim.global_batch=6", "optim.steps=4",
        "checkpoint.every=2",
        f"data.train={shards}/train-000000.tar", f"data.heldout={shards}/heldout-000000.tar", "data.validation=",
        "data.workers=0", "evaluate.pictures=0", "evaluate.max_pairs=8", f"run.root={root}",
    ]  # fmt: skip

    def train(name, *more):
        return run(Launch(load_recipe(None, [*recipe, f"run.name={name}", *more]), "test", None, "none"), World())

    whole = train("whole")
    shutil.copytree(whole, root / "resumed")
    shutil.rmtree(root / "resumed" / "checkpoints" / "step-000004")
    (root / "resumed" / "checkpoints" / "latest").write_text("step-000002")
    shutil.rmtree(root / "resumed" / "adapter")
    train("resumed", "run.resume=auto")
    with pytest.raises(UserError, match="model.quantise was nf4 and is none now"):
        train("resumed", "run.resume=auto", "model.quantise=none")
    return whole


def adapters(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_resumed_it_is_the_same_run(trained):
    ours, theirs = adapters(trained), adapters(trained.with_name("resumed"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert any(value.norm() for name, value in ours.items() if "lora_B" in name)


def test_an_adapter_is_looked_at_as_it_was_trained_and_merged_into_the_base_in_full(trained, tmp_path):
    kept = KeptScores.load(trained)
    pairs = held_out(kept)
    adapter = str(trained / "adapter")
    as_trained, in_full = (load_subject(str(BASE), adapter, quantise=how, device=CPU) for how in ("auto", "none"))
    assert (as_trained.precision, as_trained.facts()["quantise"]) == ("float32, base in nf4", "nf4")
    assert in_full.precision == "float32" and "quantise" not in in_full.facts()
    after = torch.from_numpy(kept.after)[..., :3]
    told = score(as_trained, pairs).logps
    assert relative(told, after) <= 1e-5, "what the run said of its held-out pairs"
    merged = export(Wanted(trained, tmp_path / "merged", "merged"), silent)
    weights = score(str(merged), pairs).logps
    assert relative(weights, score(in_full, pairs).logps) <= 1e-5
    # The difference that the card speaks of: that of the bases, about.
    base = [score(load_subject(str(BASE), quantise=how, device=CPU), pairs).logps for how in ("nf4", "none")]
    apart, of_bases = (weights - told).abs().mean(), (base[1] - base[0]).abs().mean()
    assert 0.3 < apart / of_bases < 3, (apart, of_bases)
    assert (told - base[0]).abs().mean() > 0.01, "the adapter has to do something"
    card = (merged / "README.md").read_text()
    assert "in 4 bits (nf4)" in card and "`model.quantise` | nf4" in card


def held_out(kept):
    from svco.data.shards import ShardSet

    shards = ShardSet.open((str(ROOT / "data_shards" / "heldout-000000.tar"),), ROOT / "none", split="heldout")
    return [shards.read(int(index)) for index in kept.index]


def test_what_is_missing_or_stored_quantised_is_said(monkeypatch):
    config = AutoConfig.from_pretrained(BASE).to_dict() | {"quantization_config": {"quant_method": "awq"}}
    with pytest.raises(UserError, match=r"stored quantised \(awq\).*model.quantise=nf4"):
        check_supported(config, "base-AWQ")
    monkeypatch.setattr("svco.model.quantised.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"bitsandbytes.*pip install 'svco\[quantised\]'"):
        load_subject(str(BASE), quantise="nf4", device=CPU)

"""``svco.score`` against plain transformers and peft: values, and gradients of a model's parameters."""

import numpy as np
import oracle
import pytest
import torch
from peft import PeftModel
from places import BASE

import svco
from svco.basics.errors import BadSample, UserError
from svco.basics.views import CORRUPT, MATCH
from svco.data.corruption import corrupt
from svco.data.pictures import decode_image
from svco.model.subject import load_subject
from svco.recipe.config import CorruptConfig
from svco.scores.measures import matched
from svco.tiny_world.contrast import world_pairs

PAIRS = list(world_pairs("val", 3, 5))


def subject(adapter=None):
    return load_subject(str(BASE), adapter and str(adapter), device=torch.device("cpu"), progress=False)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    oracle.make_adapter(BASE, folder)
    return folder


@pytest.fixture(scope="module")
def expected(adapter):
    """(policy (5, 2, 3), reference (5, 2, 3), {parameter: gradient of the mean S-VCO loss}), in float64."""
    processor, model = oracle.load(BASE)
    wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=True).double()
    with torch.no_grad(), wrapped.disable_adapter():
        reference = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in PAIRS])
    policy = torch.stack([oracle.pair_logps(wrapped, processor, pair) for pair in PAIRS])
    (sum(oracle.svco(p, r) for p, r in zip(policy, reference)) / len(PAIRS)).backward()
    named = ((name.removeprefix("base_model.model."), p.grad) for name, p in wrapped.named_parameters())
    return policy.detach(), reference, {name: grad for name, grad in named if grad is not None}


def test_values_in_the_order_of_the_pairs(expected, adapter):
    policy, reference, _ = expected
    for at_once, pairs in ((2, PAIRS), (8, PAIRS[::-1])):
        found = svco.score(BASE, pairs, adapter, at_once=at_once)
        assert torch.allclose(found.logps.double(), policy if pairs is PAIRS else policy.flip(0), atol=1e-3)
        assert (found.logps.dtype, found.tokens.dtype) == (torch.float32, torch.int64)
        assert not found.logps.requires_grad
    processor = oracle.load(BASE)[0]
    ends = [[len(processor.tokenizer(f" {r}").input_ids) + 1 for r in pair.text.responses] for pair in PAIRS[::-1]]
    assert found.tokens.tolist() == ends
    assert torch.allclose(svco.score(str(BASE), PAIRS).logps.double(), reference, atol=1e-3)


def test_the_scores_of_the_pairs_are_those_of_separate_passes(expected, adapter):
    """In float64 and by the published words, c{caption}_i{image}; exchanging the sides changes nothing."""
    policy = expected[0].numpy()
    for logps, pairs in ((policy, PAIRS), (policy[:, ::-1], [swapped(pair) for pair in PAIRS])):
        found = matched(svco.score(BASE, pairs, adapter).logps.double().numpy())
        for name, measure in found.items():
            assert measure.numerator.tolist() == matched(logps)[name].numerator.tolist(), name
    for n, ((c0_i0, prior_0, c0_i1), (c1_i1, prior_1, c1_i0)) in enumerate(policy):
        gaps = np.array([c0_i0 - c1_i0, c1_i1 - c0_i1, c0_i0 - c0_i1, c1_i1 - c1_i0])
        fair = gaps[:2] - np.array([prior_0 - prior_1, prior_1 - prior_0])
        assert min(abs(gaps).min(), abs(fair).min()) > 1e-3  # nothing here hangs on float32
        right = [(gaps[:2] > 0).all(), (gaps[2:] > 0).all(), (gaps > 0).all(), (fair > 0).all()]
        assert [bool(measure.numerator[n]) for measure in found.values()][:4] == right
    assert matched(policy)["image_accuracy"].value > 0  # something is right, and something is not
    assert matched(policy)["group_accuracy"].value < 1


def swapped(pair):
    """The pair with its sides exchanged."""
    return svco.Pair.of(pair.text.query, pair.text.responses[::-1], pair.images[::-1], key=pair.text.key)


def test_gradients_reach_the_parameters_that_ask_for_them(expected, adapter):
    of = subject(adapter)
    with of.scorer.as_reference():
        reference = svco.score(of, PAIRS)
    assert torch.allclose(reference.logps.double(), expected[1], atol=1e-3)
    adapted = {name: p.requires_grad_() for name, p in of.policy.named_parameters() if ".lora_" in name}
    loss, _ = svco.make_objective(svco.Config().objective)(svco.score(of, PAIRS, at_once=2), reference)
    loss.mean().backward()
    assert adapted.keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        assert torch.allclose(adapted[name].grad.double(), gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))
    with torch.no_grad():
        assert not svco.score(of, PAIRS[:1]).logps.requires_grad


def test_the_fourth_view_is_the_own_image_corrupted():
    how = CorruptConfig(kind="noise", seed=3)
    of, (pair, *_) = subject(), PAIRS
    found = svco.score(of, [pair], corrupt=how)
    assert found.logps.shape == (1, 2, 4)
    assert torch.allclose(found.logps[..., :3], svco.score(of, [pair]).logps, atol=1e-3)
    blurred = [corrupt(decode_image(data, ""), pair.text.key, side, how) for side, data in enumerate(pair.images)]
    same = svco.Pair.of(pair.text.query, pair.text.responses, blurred)
    assert torch.allclose(found.logps[..., CORRUPT], svco.score(of, [same]).logps[..., MATCH], atol=1e-3)


def test_what_cannot_be_scored_is_said(adapter):
    of = subject()
    long = svco.Pair.of("Why? " * 200, ("So.", "Not so."), PAIRS[0].images, key="long")
    torn = svco.Pair.of("Why?", ("So.", "Not so."), (PAIRS[0].images[0][:99], PAIRS[0].images[1]), key="torn")
    for pair, reason in ((long, "long-query"), (torn, "undecodable-image")):
        with pytest.raises(BadSample, match=f"sample '{pair.text.key}'") as error:
            svco.score(of, [*PAIRS, pair])
        assert error.value.reason == reason
    with pytest.raises(UserError, match="no pairs"):
        svco.score(of, [])
    with pytest.raises(UserError, match="loaded already"):
        svco.score(of, PAIRS, adapter)
    for part in ("tower", "head"):
        parameters = list(getattr(of.family.parts(of.policy), part).parameters())
        parameters[0].requires_grad_()
        with pytest.raises(UserError, match=f"{part}.* require gradients, and score gives them none"):
            svco.score(of, PAIRS)
        parameters[0].requires_grad_(False)

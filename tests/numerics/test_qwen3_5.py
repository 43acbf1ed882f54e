"""Qwen3.5's gated DeltaNet layers: the state forks at the branches, and nothing of one cell is in another."""

import copy
import itertools

import numpy as np
import oracle
import pytest
import tiny_families
import torch
from test_families import QUERY, RESPONSES, SIZES, pairs, product, relative
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.qwen3_5 import modeling_qwen3_5

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.batches.encode import Encode
from svco.batches.forks import CHUNK
from svco.batches.layout import Layout
from svco.batches.pack import PackedCollate
from svco.commands.evaluation.generation import generate
from svco.commands.plan.activations import Kernels
from svco.commands.plan.activations import layer_bytes as layer_bytes_of_attention
from svco.commands.plan.architecture import of_config
from svco.commands.plan.delta import layer_bytes, layer_flops
from svco.commands.plan.flops import flops
from svco.commands.plan.workload import Row, Tuning, pair_row
from svco.data.pairs import PairText
from svco.families import architecture, delta_net, load_family
from svco.model.attention import register
from svco.model.load import load_tuned
from svco.model.recompute import RecomputeDial, set_recompute
from svco.model.subject import load_subject
from svco.model.twin import SavedBytes, TwinLayer
from svco.recipe.config import OptimConfig
from svco.recipe.read import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen35")
    tiny_families.make_base("qwen35", folder / "base")
    oracle.make_adapter(folder / "base", folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def scored(base):
    """(scorer of policy and live reference with an adapter that does something, a batch of two pairs)."""
    config = load_recipe(
        None, [f"model.base={base / 'base'}", f"lora.init_from={base / 'adapter'}", "lora.rank=4", "lora.alpha=8"]
    )
    family = load_family(str(base / "base"), 128)
    tuned = load_tuned(config, family, torch.float32, "lockstep", CPU, progress=False)
    batch, bad = Encode(family, PackedCollate())(pairs())
    assert not bad
    return tuned.scorer, batch


def trees(rng):
    """A row of trees of unequal depth whose segments may be shorter than the convolution's window."""
    segments, here = [], 0
    for _ in range(4):
        paths = []
        for n in range(int(rng.integers(1, 7))):
            ancestors = paths[-1 if n < 2 else int(rng.integers(len(paths)))] if paths else ()
            own = (here, here + int(rng.choice([1, 1, 2, 3, 30, 70, 140])))
            segments.append((own, ancestors))
            paths.append((*ancestors, own))
            here = own[1]
    return segments


def emulated(
    query,
    key,
    value,
    *,
    g,
    beta,
    initial_state,
    output_final_state,
    use_qk_l2norm_in_kernel,
    cu_seqlens,
    cu_seqlens_cpu,
):
    """flash-linear-attention's contract with ``cu_seqlens`` (0.6.0): one row of sequences of any lengths, a state a
    sequence. Keywords it does not take fail here as they would there."""
    assert query.shape[0] == 1 and use_qk_l2norm_in_kernel
    assert cu_seqlens.equal(cu_seqlens_cpu)
    bounds = cu_seqlens.tolist()
    assert initial_state is None or len(initial_state) == len(bounds) - 1
    outputs, states = [], []
    for n, (start, stop) in enumerate(zip(bounds, bounds[1:])):
        rows = slice(start, stop)
        output, state = oracle.exact_qwen35().chunk_rule(
            query[:, rows],
            key[:, rows],
            value[:, rows],
            g[:, rows],
            beta[:, rows],
            initial_state=None if initial_state is None else initial_state[n : n + 1],
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        outputs.append(output)
        states.append(state)
    return torch.cat(outputs, 1), torch.cat(states) if output_final_state else None


@pytest.mark.parametrize("kernel", ["padded", "packed"])
def test_a_layer_over_trees_equals_the_layer_over_each_path(base, kernel, monkeypatch):
    """In float64, with unequal depths, one-token segments and ancestors shorter than the convolution; gradients too. The paths
    run transformers' own forward, token by token."""
    exact = oracle.exact_qwen35()
    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", exact.chunk_rule)
    monkeypatch.setattr(delta_net, "packed_rule", lambda device: emulated if kernel == "packed" else None)
    theirs = oracle.load_model(base / "base").model.language_model.layers[0].linear_attn
    ours = copy.deepcopy(theirs)
    ours.__class__ = delta_net.ForkedDeltaNet
    ours.norm.__class__ = exact.Qwen3_5RMSNormGated
    segments = trees(np.random.default_rng(0))
    assert len({len(ancestors) for _, ancestors in segments}) > 3
    torch.manual_seed(0)
    hidden = torch.randn(1, segments[-1][0][1], 64, dtype=torch.float64, requires_grad=True)
    made = ours(hidden, layout=Layout.of(segments))
    wanted = []
    for own, ancestors in segments:
        path = torch.cat([hidden[:, slice(*span)] for span in (*ancestors, own)], 1)
        wanted.append(theirs(path)[:, own[0] - own[1] :])
    wanted = torch.cat(wanted, 1)
    assert relative(made, wanted) < 1e-12
    slope = torch.randn_like(made)
    for ours_, theirs_ in zip(
        *(torch.autograd.grad((x * slope).sum(), hidden, retain_graph=True) for x in (made, wanted))
    ):
        assert relative(ours_, theirs_) < 1e-11


def test_negative_control_without_the_fork(base, monkeypatch):
    """transformers' layer drops the layout without a word, and then pairs and siblings are in one another's scores."""
    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", oracle.exact_qwen35().chunk_rule)
    right, reference, _ = product(base, "lora")
    plain = modeling_qwen3_5.Qwen3_5GatedDeltaNet.forward
    monkeypatch.setattr(
        delta_net.ForkedDeltaNet, "forward", lambda self, hidden_states, layout, **more: plain(self, hidden_states)
    )
    wrong, wrong_reference, _ = product(base, "lora")
    assert relative(wrong, right) > 1e-3 and relative(wrong_reference, reference) > 1e-3


def test_one_cells_text_changes_no_other_cell(scored):
    """To the last bit, in policy and reference: the rows of one branch get other words, and the scores of its cell alone change.
    A control: other words at the end of a prefix change every cell behind it, and none of another tree."""
    scorer, batch = scored
    layout, cells = batch.layout, batch.cell.tolist()
    by_row = {}
    for row, cell in zip(batch.predicts.tolist(), cells, strict=True):
        by_row.setdefault(row, set()).add(cell)

    def changed(rows):
        ids = batch.input_ids.clone()
        ids[rows] = (ids[rows] + 7) % 200 + 50
        other = copy.copy(batch)
        object.__setattr__(other, "input_ids", ids)
        with torch.no_grad():
            scores = scorer(other)
        different = [(a.logps != b.logps).flatten().nonzero().flatten().tolist() for a, b in zip(scores, before)]
        assert different[0] == different[1]
        return set(different[0])

    with torch.no_grad():
        before = scorer(batch)
    branches = 0
    for own, keys in zip(layout.queries, layout.keys, strict=True):
        if len(keys) == 2:
            (cell,) = set.union(*(by_row[row] for row in range(*own)))
            assert changed(list(range(*own))) == {cell}
            branches += 1
        else:
            assert changed([own[1] - 1]) == by_row[own[1] - 1] and len(by_row[own[1] - 1]) == 2
    assert branches > 8


def test_recomputed_or_not_and_the_reference_by_itself(scored):
    """Scores and gradients to the last bit, and the reference's stream equal to what a cached reference is made from."""
    scorer, batch = scored
    made = []
    for count in (0, len(scorer.layers)):
        set_recompute(scorer.layers, count)
        scorer.zero_grad()
        policy, reference = scorer(batch)
        (policy.logps * torch.arange(policy.logps.numel()).view_as(policy.logps)).sum().backward()
        made.append(
            [policy.logps, reference.logps, *(p.grad.clone() for p in scorer.parameters() if p.grad is not None)]
        )
    set_recompute(scorer.layers, 0)
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))
    assert len(made[0]) > 20
    with torch.no_grad(), scorer.as_reference():
        alone, _ = scorer(batch)
    assert torch.allclose(alone.logps, made[0][1], rtol=0, atol=1e-4)
    assert not torch.allclose(alone.logps, made[0][0], rtol=0, atol=1e-2)


def test_memory_is_measured_on_both_kinds_of_layer(scored):
    """A DeltaNet layer keeps something else than one that attends; the dial fills memory with what each keeps."""
    scorer, batch = scored
    dial = RecomputeDial(scorer, OptimConfig(activation_gb=1e-9), World(), batch.llm_tokens)
    scorer(batch)[0].logps.sum().backward()
    delta, again, attends = scorer.saved.per_layer
    assert delta == again != attends
    kept = [each * batch.llm_tokens for each in scorer.saved.per_layer]
    dial._free_bytes = lambda: kept[2] + kept[1] * 1.5
    assert dial.settle().startswith("recompute: 1 of 3 layers (a layer keeps ")
    set_recompute(scorer.layers, 0)


def test_the_planned_work_of_a_layer_is_what_is_done(base):
    """Against torch's counter, which knows products and convolutions and no triangular systems; segments fill whole chunks."""
    config = AutoConfig.from_pretrained(base / "base")
    a, tuning = of_config(config), Tuning(True, 0, (), True, "cached")
    assert a.delta.numbers == (0, 1) and a.attending.layers == 1 and a.delta.among(1) == 1
    segments = [
        ((0, 2 * CHUNK), ()),
        ((2 * CHUNK, 3 * CHUNK), ((0, 2 * CHUNK),)),
        ((3 * CHUNK, 4 * CHUNK), ((0, 2 * CHUNK),)),
    ]
    row = Row(tokens=4 * CHUNK)
    model = AutoModelForImageTextToText.from_config(config)
    layer = architecture("qwen3_5").parts(model).layers[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, 4 * CHUNK, 64), position_embeddings=None, layout=Layout.of(segments))
    linear, _, rule = layer_flops(a.delta, tuning, row)
    systems = row.tokens * a.delta.value_heads * CHUNK * (a.delta.key_size + a.delta.value_size)
    assert counter.get_total_flops() == pytest.approx(linear + rule - systems, rel=0.02)
    assert rule > 0.2 * linear, "a rule that is left out would be seen"
    one = flops(a, tuning, row, 0, False).forward - flops(a.attending, tuning, row, 0, False).forward
    assert one == pytest.approx(2 * (linear + rule))
    last = (
        2 * row.tokens * a.delta.linears[-1].weights
    )  # which only ZeRO-3's linear function makes recomputation repeat
    again = [flops(a, tuning, row, 1, zero3).recompute for zero3 in (True, False)]
    assert again == pytest.approx([linear + rule, linear + rule - last])
    assert a.weights == sum(p.numel() for p in model.parameters())


class Saves(torch.autograd.Function):
    """What flash-linear-attention 0.6.0 saves of a call: queries and keys normed, values, decay summed up, weights, the chunks'
    triangles, first states."""

    @staticmethod
    def forward(ctx, query, key, value, g, beta, states):
        triangles = query.new_zeros(*value.shape[:3], CHUNK)
        ctx.save_for_backward(query.clone(), key.clone(), value, g.clone(), beta, triangles, states)
        return value.clone()


def test_the_planned_memory_of_a_layer_is_what_it_keeps(base, monkeypatch):
    def kernel(query, key, value, *, g, beta, initial_state, output_final_state, cu_seqlens, **more):
        output = Saves.apply(query, key, value, g, beta, initial_state)
        state = (len(cu_seqlens) - 1, value.shape[2], key.shape[3], value.shape[3])
        return output, output.sum() * 0 + torch.zeros(state) if output_final_state else None

    config = AutoConfig.from_pretrained(base / "base")
    a, tuning = of_config(config), Tuning(False, 0, (), False, "lockstep", 4)
    model = AutoModelForImageTextToText.from_config(config).requires_grad_(False)
    twin = TwinLayer(architecture("qwen3_5").parts(model).layers[0])
    segments, here = [], 0
    for prefix in (100, 100, 20):  # a pair: each condition's prefix with two responses behind it
        root = (here, here + prefix)
        segments += [(root, ()), ((root[1], root[1] + 20), (root,)), ((root[1] + 20, root[1] + 40), (root,))]
        here = root[1] + 40
    hidden = torch.randn(1, here, 64, requires_grad=True)
    counted = {}
    for name, rule in (("kernel", kernel), ("transformers", None)):
        monkeypatch.setattr(delta_net, "packed_rule", lambda device, rule=rule: rule)
        saved = SavedBytes([twin])
        saved.wanted = True
        with saved.counting(twin, 0, here):
            twin(hidden, None, position_embeddings=None, layout=Layout.of(segments))
        counted[name] = saved.per_layer[0] * here
    planned = layer_bytes(a, a.delta, tuning, Row(tokens=here, images=2), zero3=False)
    assert planned == pytest.approx(counted["kernel"], rel=0.1)
    assert counted["transformers"] > 1.5 * planned, "the control"


@pytest.mark.parametrize("targets", [(), ("all-linear",)])
def test_the_planned_memory_of_a_layer_that_attends_with_gates(base, targets):
    config = AutoConfig.from_pretrained(base / "base")
    a, tuning = of_config(config), Tuning(False, 0, targets, False, "lockstep", 4)
    model = AutoModelForImageTextToText.from_config(config).requires_grad_(False)
    model.set_attn_implementation({"text_config": register("sdpa")})
    parts = architecture("qwen3_5").parts(model)
    layer = parts.layers[2]
    for linear in layer.modules() if targets else ():
        if isinstance(
            linear, torch.nn.Linear
        ):  # a layer whose weights learn keeps its input, as one with an adapter does
            linear.weight.requires_grad_()
    segments, here = [], 0
    for prefix in (200, 200, 40):
        root = (here, here + prefix)
        segments += [(root, ()), ((root[1], root[1] + 20), (root,)), ((root[1] + 20, root[1] + 40), (root,))]
        here = root[1] + 40
    hidden, twin = torch.randn(1, here, 64, requires_grad=True), TwinLayer(layer)
    angles = parts.rotary(hidden, torch.arange(here).expand(3, 1, -1))
    saved, layout = SavedBytes([twin]), Layout.of(segments)
    layout.blocks  # noqa: B018 (made once for all layers)
    saved.wanted = True
    with saved.counting(twin, 0, here):
        twin(hidden, None, position_embeddings=angles, layout=layout)
    row = pair_row(itertools.product((0, 1), (0, 1, 2)), (200, 200, 40), (21, 21), 0)
    assert row.tokens == here
    planned = layer_bytes_of_attention(a.attending, tuning, row, Kernels(dense=True))
    assert planned == pytest.approx(saved.per_token * here, rel=0.05)


def test_answers_as_transformers_alone(base):
    """Greedy generation goes through transformers' cache and not through the fork: side by side, padded, as one by one, and
    equal to forward passes over the whole text."""
    subject = load_subject(str(base / "base"), device=CPU, progress=False)
    texts = [PairText("k", QUERY, RESPONSES[0]), PairText("l", "Is the circle to the left of it red?", RESPONSES[0])]
    prompts = [subject.family.prompt(text, None) for text in texts]
    assert len(prompts[0]) != len(prompts[1])
    together = generate(subject, prompts, [None, None], 6)
    assert together == [generate(subject, [prompt], [None], 6)[0] for prompt in prompts]
    with subject.answering() as model, torch.no_grad():
        ids = torch.from_numpy(prompts[0])[None]
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert subject.family.decode(ids[0, len(prompts[0]) :]) == together[0]


def test_a_layer_that_cannot_be_forked_is_refused(base):
    """Another class in the place of a DeltaNet, e.g. a kernel's, would drop the layout without a word."""
    subject = load_subject(str(base / "base"), device=CPU, progress=False)

    class Kernel(modeling_qwen3_5.Qwen3_5GatedDeltaNet):
        pass

    subject.policy.model.language_model.layers[1].linear_attn.__class__ = Kernel
    with pytest.raises(UserError, match="Layer 1 of the base model is a Kernel, whose state svco cannot fork"):
        subject.family.parts(subject.policy)


def test_thoughts_are_not_asked_for(base):
    """A template that opens thoughts when it asks would end a prompt in half of the line break that an answer begins with."""
    family = load_family(str(base / "base"), 128)
    encoded = family.encode_text(PairText("k", QUERY, RESPONSES[0]), SIZES[0])
    assert family.decode(encoded.prefixes[2]).endswith("<think>\n\n</think>")
    assert family.decode(encoded.responses[0]) == RESPONSES[0][0]

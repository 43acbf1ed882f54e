"""Tree attention against dense masked attention in float64, forward and gradients; kernels we cannot run here against an
emulation of their documented contract."""

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers.utils.generic import is_flash_attention_requested

from svco.basics.errors import UserError
from svco.batches.layout import Layout, Tail
from svco.model import attention
from svco.model.attention import blocked, choose_backend, kernel_of, torch_call, tree_attention, varlen
from svco.model.last import Others, Taken

# Two trees with two branches, one without, one whose branch has a single token; T = 27.
SEGMENTS = [
    ((0, 5), ()),
    ((5, 8), ((0, 5),)),
    ((8, 12), ((0, 5),)),
    ((12, 14), ()),
    ((14, 20), ()),
    ((20, 21), ((14, 20),)),
    ((21, 27), ((14, 20),)),
]
LAYOUT = Layout.of(SEGMENTS)
# Text, a picture whose features see each other, text, two branches; and a picture that is all of its prefix, with one branch.
PICTURED = Layout.of(
    [
        ((0, 3), ()),
        ((3, 9), ((0, 3),)),
        ((9, 12), ((0, 3), (3, 9))),
        ((12, 16), ((0, 3), (3, 9), (9, 12))),
        ((16, 21), ((0, 3), (3, 9), (9, 12))),
        ((21, 25), ()),
        ((25, 27), ((21, 25),)),
    ],
    [False, True, False, False, False, True, False],
)


def dense(query, key, value, layout, scale, window=None, siblings=False):
    """softmax(QKᵀ·scale + mask)V over the whole row, the mask written out from the ranges: each token's path, and on it what is
    before the token, or of its own picture, and in the window."""
    total = query.shape[2]
    mask = torch.zeros(total, total, dtype=torch.bool)
    for (start, stop), ranges, two_way in zip(layout.queries, layout.keys, layout.two_way):
        path = [place for low, high in ranges for place in range(low, high)]
        for query_place in range(start, stop):
            here = path.index(query_place)
            for there, key_place in enumerate(path):
                seen = there <= here or (two_way and key_place >= start)
                mask[query_place, key_place] = seen and (window is None or there > here - window)
        for _, high in ranges[:-1] if siblings else ():  # the mistake: a branch sees everything after its prefix
            mask[start:stop, high:start] = True
    repeat = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeat, 1) for x in (key, value))
    weights = (query @ key.transpose(-1, -2) * scale).masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights @ value).transpose(1, 2)


def emulated_flash(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
):
    """flash_attn_varlen_func as its documentation has it: sequences by cumulative lengths; causal is aligned bottom-right; with a
    window the query at i sees the keys from i + seqlen_k - seqlen_q - left to i + seqlen_k - seqlen_q + right, -1 is no bound."""
    assert isinstance(max_seqlen_q, int) and isinstance(max_seqlen_k, int)
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert q.shape[1] % k.shape[1] == 0 and k.shape == v.shape
    assert cu_seqlens_q[-1] == len(q) and cu_seqlens_k[-1] == len(k)
    rows = []
    for s in range(len(cu_seqlens_q) - 1):
        mine, theirs = slice(*cu_seqlens_q[s : s + 2].tolist()), slice(*cu_seqlens_k[s : s + 2].tolist())
        a, b, c = q[mine], k[theirs], v[theirs]
        assert 0 < len(a) <= max_seqlen_q and 0 < len(b) <= max_seqlen_k
        b, c = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (b, c))
        scores = torch.einsum("qhd,khd->hqk", a, b) * (softmax_scale or q.shape[-1] ** -0.5)
        behind = torch.arange(len(b)) - torch.arange(len(a))[:, None] - (len(b) - len(a))
        left, right = window_size[0], 0 if causal else window_size[1]
        hidden = (behind < -left if left >= 0 else False) | (
            behind > right if right >= 0 else torch.zeros_like(behind).bool()
        )
        scores = scores.masked_fill(hidden, float("-inf"))
        rows.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), c))
    return torch.cat(rows)


def emulated_old(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    """torch 2.10's varlen_attn: ``is_causal``, no scale, no grouped queries."""
    assert query.shape[1] == key.shape[1], "this version knows no grouped queries"
    return emulated_flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, causal=is_causal)


def emulated_new(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
):
    """torch 2.13's: causal is ``window_size=(-1, 0)``, grouped queries must be asked for."""
    assert enable_gqa or query.shape[1] == key.shape[1]
    return emulated_flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, 0.0, scale, False, window_size)


KERNELS = {
    "sdpa": lambda *a: blocked(*a),
    "flash": lambda *a: varlen(*a, call=partial(attention._flash, function=emulated_flash)),
    "varlen-old": lambda *a: varlen(*a, call=torch_call(emulated_old)),
    "varlen-new": lambda *a: varlen(*a, call=torch_call(emulated_new)),
}


def tensors(heads, groups, total=27, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, h, total, 8, generator=generator, dtype=torch.float64) for h in (heads, groups, groups)]


def run(function, inputs, *more, layout=LAYOUT):
    inputs = [x.clone().requires_grad_() for x in inputs]
    output = function(*inputs, layout, *more)
    output.mul(torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
    return [output.detach(), *(x.grad for x in inputs)]


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [8**-0.5, 0.2])
def test_against_dense(kernel, groups, scale):
    inputs = tensors(4, groups)
    for ours, theirs in zip(run(KERNELS[kernel], inputs, scale), run(dense, inputs, scale)):
        assert (ours - theirs).abs().max() <= 1e-12


@pytest.mark.parametrize("layout", [LAYOUT, PICTURED], ids=["causal", "pictured"])
@pytest.mark.parametrize("window", [None, 1, 4, 7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_two_way_segments_and_windows_on_the_path(kernel, window, layout):
    """A window shorter than a picture, one that reaches over a prefix's segments, one of a token alone; values and gradients."""
    inputs = tensors(4, 2)
    right = run(dense, inputs, 0.3, window, layout=layout)
    for ours, theirs in zip(run(KERNELS[kernel], inputs, 0.3, window, layout=layout), right):
        assert (ours - theirs).abs().max() <= 1e-12


def test_negative_controls_one_way_pictures_and_no_window():
    inputs = tensors(4, 2)
    right, no_window = (run(dense, inputs, 0.3, window, layout=PICTURED)[0] for window in (7, None))
    one_way = replace(PICTURED, two_way=(False,) * 7)
    for wrong in (no_window, run(dense, inputs, 0.3, 7, layout=one_way)[0]):
        assert (right - wrong).abs().max() > 1e-2


def test_a_path_no_longer_than_the_window_needs_none():
    """``sliding_window`` as transformers' layers give it; the longest path of the row has 17 tokens."""
    inputs, asked = tensors(4, 2), []

    def noting(query, key, value, layout, scale, window):
        asked.append(window)
        return blocked(query, key, value, layout, scale, window)

    for window in (None, 16, 17, 4096):
        output, _ = tree_attention(
            None, *inputs, None, layout=PICTURED, kernel=noting, scaling=0.3, sliding_window=window
        )
        assert torch.allclose(output, dense(*inputs, PICTURED, 0.3, window))
    assert asked == [None, 16, None, None]


@pytest.mark.parametrize(
    ("whole", "predicts", "window"),
    [
        (LAYOUT, [4, 5, 6, 7, 10, 11, 13, 19, 20, 24, 25, 26], None),
        (PICTURED, [11, 12, 13, 14, 15, 18, 19, 20, 24, 25, 26], None),
        (PICTURED, [11, 12, 13, 14, 15, 18, 19, 20, 24, 25, 26], 4),
    ],
    ids=["causal", "pictured", "window"],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_last_layers_queries_give_what_they_gave_among_all(kernel, whole, predicts, window):
    """Forward and gradients of some rows' queries against all keys; keys and values of the others come beside."""
    tail = Tail.of(whole, np.array(predicts))
    kernels = {"kernel": KERNELS[kernel], "scaling": 0.3, "sliding_window": window}

    def narrowed(q, k, v, layout):
        others = Others(tail.order)
        with pytest.raises(Taken):
            tree_attention(
                None, *(x[:, :, tail.rest] for x in (q, k, v)), None, layout=layout, others=others, **kernels
            )
        few = (x[:, :, tail.rows] for x in (q, k, v))
        output, _ = tree_attention(None, *few, None, layout=tail.layout, others=others, **kernels)
        return torch.zeros_like(q.transpose(1, 2)).index_copy(1, tail.rows, output)

    def among_all(q, k, v, layout):
        output = dense(q, k, v, layout, 0.3, window)
        return torch.zeros_like(output).index_copy(1, tail.rows, output[:, tail.rows])

    inputs = tensors(4, 2)
    for ours, theirs in zip(run(narrowed, inputs, layout=whole), run(among_all, inputs, layout=whole)):
        assert (ours - theirs).abs().max() <= 1e-12


def test_negative_control_seeing_a_sibling_is_seen():
    inputs = tensors(4, 2)
    right, wrong = (run(dense, inputs, 0.3, None, siblings)[0] for siblings in (False, True))
    assert (run(blocked, inputs, 0.3)[0] - wrong).abs().max() > 1e-2
    assert torch.equal(right[:, :8], wrong[:, :8]), "the first branch has no sibling before it"


def test_top_left_alignment_would_be_seen():
    """The mistake most easily made with branches: their causal mask aligned at the first key instead of the last."""
    inputs = tensors(4, 4)

    def top_left(q, k, v, *rest, **more):
        more["causal"] = False
        return emulated_flash(q, k, v, *rest, **more)

    wrong = run(lambda *a: varlen(*a, call=partial(attention._flash, function=top_left)), inputs, 0.3)
    assert (wrong[0] - run(dense, inputs, 0.3)[0]).abs().max() > 1e-2


def test_as_transformers_calls_it():
    q, k, v = tensors(4, 2)
    output, weights = tree_attention(
        None, q, k, v, None, layout=LAYOUT, kernel=blocked, scaling=0.3, dropout=0.0, position_ids=None
    )
    assert weights is None
    assert torch.allclose(output, dense(q, k, v, LAYOUT, 0.3))
    with pytest.raises(ValueError, match="no attention mask"):
        tree_attention(None, q, k, v, torch.ones(27), layout=LAYOUT, kernel=blocked)


def test_torchs_own_signature_is_one_of_the_emulated_ones():
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    assert {"window_size", "enable_gqa", "scale"} <= known.keys() or "is_causal" in known
    names = list(known)[:7]
    assert names == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


def test_transformers_takes_no_backend_for_a_kernel_of_its_own():
    """What has "flash" in its name it looks for on its hub, and no model loads: on a GPU with flash-attn alone."""
    assert is_flash_attention_requested(requested_attention_implementation="svco_flash")
    for backend in attention.BACKENDS:
        assert not is_flash_attention_requested(requested_attention_implementation=attention.attention_name(backend))


def test_choice_of_backend():
    cpu = torch.device("cpu")
    assert choose_backend("auto", cpu, torch.float32)[0] == "sdpa"
    assert "needs a CUDA GPU" in choose_backend("auto", cpu, torch.bfloat16)[1]
    assert choose_backend("sdpa", cpu, torch.float64) == ("sdpa", "as model.attention asks")
    with pytest.raises(UserError, match="cannot run here"):
        choose_backend("flash", cpu, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["flash", "varlen", "sdpa"])
def test_kernels_on_a_gpu(backend):
    device = torch.device("cuda")
    try:
        choose_backend(backend, device, torch.bfloat16)
    except UserError as error:
        pytest.skip(str(error))
    q, k, v = (x.to(device, torch.bfloat16).repeat(1, 1, 1, 8) for x in tensors(4, 2))
    for layout, window in ((LAYOUT, None), (PICTURED, None), (PICTURED, 7)):
        ours = kernel_of(backend)(q, k, v, layout.map(lambda t: t.to(device)), 0.3, window).float().cpu()
        theirs = dense(*(x.double().cpu() for x in (q, k, v)), layout, 0.3, window)
        assert np.abs(ours.numpy() - theirs.numpy()).max() <= 3e-2

"""The log-prob head against log_softmax of full logits, values and gradients, and what it never makes."""

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.utils._python_dispatch import TorchDispatchMode

from svco.model.logprobs import LogProbHead, TrainedLogProbHead, attach, chunks

ROWS, WIDTH, VOCABULARY = 11, 6, 19
CHUNK = 4 * VOCABULARY * 3
"""Three rows a chunk: 11 rows make four, the last of them ragged."""


def make(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(VOCABULARY, WIDTH, generator=generator))
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)


def plain(head, hidden, targets):
    return head(hidden).double().log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


def frozen(head, hidden, targets, chunk=CHUNK):
    direction, (logps,) = LogProbHead(head, chunk)(targets, hidden.detach(), derivative=True)
    return attach(hidden, logps, direction)


def test_frozen_head_values_gradient_and_gradcheck():
    head, hidden, targets = make()
    head.requires_grad_(False)
    slopes = torch.linspace(-2, 1, ROWS, dtype=torch.float64)
    assert torch.allclose(frozen(head, hidden, targets), plain(head, hidden, targets), rtol=0, atol=1e-13)
    (ours,) = torch.autograd.grad((frozen(head, hidden, targets) * slopes).sum(), hidden)
    (theirs,) = torch.autograd.grad((plain(head, hidden, targets) * slopes).sum(), hidden)
    assert (ours - theirs).abs().max() <= 1e-13
    assert torch.autograd.gradcheck(lambda h: frozen(head, h, targets), hidden)


def test_trained_head_values_gradients_and_gradcheck():
    head, hidden, targets = make()
    module = TrainedLogProbHead(head, CHUNK)
    slopes = torch.linspace(-2, 1, ROWS, dtype=torch.float64)
    ours = torch.autograd.grad((module(targets, hidden) * slopes).sum(), [hidden, head.weight])
    theirs = torch.autograd.grad((plain(head, hidden, targets) * slopes).sum(), [hidden, head.weight])
    for a, b in zip(ours, theirs):
        assert (a - b).abs().max() <= 1e-12
    from svco.model.logprobs import _Recomputed

    def function(h, w):
        return _Recomputed.apply(h, w, targets, CHUNK)

    assert torch.autograd.gradcheck(function, (hidden, head.weight))


def test_negative_control_gradcheck_sees_a_wrong_direction():
    head, hidden, targets = make()
    head.requires_grad_(False)

    def wrong(h):
        direction, (logps,) = LogProbHead(head, CHUNK)(targets, h.detach(), derivative=True)
        return attach(h, logps, direction * 1.01)

    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(wrong, hidden)


def test_two_streams_in_one_call():
    head, hidden, targets = make()
    other = make(seed=1)[1].detach()
    direction, (first, second) = LogProbHead(head, CHUNK)(targets, hidden.detach(), other, derivative=False)
    assert direction.numel() == 0
    assert torch.allclose(first, plain(head, hidden, targets))
    assert torch.allclose(second, plain(head, other, targets))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    head, hidden, targets = make(dtype)
    head.requires_grad_(False)
    logps = frozen(head, hidden, targets)
    assert logps.dtype == torch.float32
    exact = plain(head.double(), hidden.double(), targets)
    assert (logps - exact).abs().max() <= 1e-5, "beyond the weights and states themselves nothing is rounded"
    head.to(dtype)
    logps.sum().backward()
    assert hidden.grad.dtype == dtype


class Largest(TorchDispatchMode):
    """The largest tensor with a vocabulary axis that any operation makes."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            # Logits have the vocabulary last; so has the transposed weight, of WIDTH rows.
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.shape[1] == VOCABULARY:
                self.rows = max(self.rows, len(tensor) if len(tensor) != WIDTH else 0)
        return made


@pytest.mark.parametrize("trained", [False, True])
def test_no_logits_larger_than_a_chunk(trained):
    head, hidden, targets = make()
    head.requires_grad_(trained)
    with Largest() as largest:
        logps = TrainedLogProbHead(head, CHUNK)(targets, hidden) if trained else frozen(head, hidden, targets)
        logps.sum().backward()
    assert largest.rows == 3
    with Largest() as whole:
        plain(head, hidden, targets).sum().backward()
    assert whole.rows == ROWS, "the control: plain logits are seen"


def test_chunks_cover_every_row_once():
    for rows, size in ((11, CHUNK), (3, CHUNK), (1, 1), (5, 10**9)):
        assert [i for part in chunks(rows, VOCABULARY, size) for i in range(rows)[part]] == list(range(rows))

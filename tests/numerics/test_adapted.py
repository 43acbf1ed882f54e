"""A matrix and its adapter as one product, against peft's own computation of the same module."""

import copy
import pickle

import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from svco.model.lora import adapter_modules, add_adapters, join_adapters
from svco.recipe.config import LoraConfig

WIDE, INSIDE, RANK, ROWS = 24, 40, 3, 17


class Layer(nn.Module):
    """What decoder layers end in: two matrices and a residual; with ``norm`` one behind the last, as Gemma has it."""

    def __init__(self, bias=False, norm=False):
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(WIDE, INSIDE, bias=bias), nn.Linear(INSIDE, WIDE, bias=bias)
        self.norm = nn.LayerNorm(WIDE) if norm else nn.Identity()

    def forward(self, x):
        return x + self.norm(self.down_proj(torch.nn.functional.silu(self.up_proj(x))))


class Model(nn.Module):
    dtype = torch.float64

    def __init__(self, **how):
        super().__init__()
        self.layer = Layer(**how)

    def forward(self, x):
        return self.layer(x)


def adapted_model(dtype=torch.float64, dropout=0.0, **how):
    torch.manual_seed(0)
    model = Model(**how).to(dtype)
    model.dtype = dtype
    add_adapters(model, LoraConfig(rank=RANK, alpha=7, dropout=dropout), "layer", ())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_().mul_(0.3)
    return model


def outcome(model, x, recompute=False):
    """Output and every gradient."""
    x = x.detach().clone().requires_grad_()
    model.zero_grad()
    out = checkpoint(model, x, use_reentrant=False) if recompute else model(x)
    out.square().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


def inputs(dtype=torch.float64):
    return torch.randn(1, ROWS, WIDE, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_values_and_gradients_are_pefts(recompute, bias, norm):
    model, x = adapted_model(bias=bias, norm=norm), inputs()
    ours = outcome(model, x, recompute)
    join_adapters(model, False)
    theirs = outcome(model, x)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert len(ours) == 6
    model.layer.down_proj.scaling["default"] *= 1.001  # what is compared is sensitive to it
    join_adapters(model, True)
    assert not torch.allclose(outcome(model, x)[0], theirs[0], rtol=1e-9)


def operations(model, recompute, joined):
    join_adapters(model, joined)
    with FlopCounterMode(display=False) as counter:
        outcome(model, inputs(), recompute)
    return counter.get_total_flops()


@pytest.mark.parametrize("norm", [False, True])
def test_recomputation_leaves_out_the_last_product_where_nothing_needs_it(norm):
    model = adapted_model(norm=norm)
    once = operations(model, recompute=False, joined=True)
    assert once == operations(model, recompute=False, joined=False)
    base, low = 2 * ROWS * WIDE * INSIDE, 2 * ROWS * RANK
    first, last = base + low * (WIDE + INSIDE), low * INSIDE
    ours, theirs = (operations(model, recompute=True, joined=joined) - once for joined in (True, False))
    if norm:  # the norm's backward pass needs it
        assert ours == theirs == first + last + base + low * WIDE
    else:
        assert (ours, theirs) == (first + last, first + last + base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_that_is_zero_changes_no_bit(dtype):
    model, x = adapted_model(dtype, bias=True), inputs(dtype)
    plain = Model(bias=True).to(dtype)
    plain.load_state_dict(
        {name.replace(".base_layer", ""): v for name, v in model.state_dict().items() if "lora_" not in name}
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    assert torch.equal(model(x), plain(x))


def test_halves_are_rounded_once_and_not_twice():
    exact, x = adapted_model(), inputs()
    half = adapted_model(torch.bfloat16)
    half.load_state_dict(exact.state_dict())
    exact.load_state_dict(half.state_dict())
    x = x.bfloat16()
    truth = outcome(exact, x.double())
    errors = []
    for joined in (True, False):
        join_adapters(half, joined)
        errors.append([float((a.double() - b).norm() / b.norm()) for a, b in zip(outcome(half, x), truth, strict=True)])
    assert all(ours <= 1.1 * theirs for ours, theirs in zip(*errors, strict=True)), errors


def test_only_what_learns_has_a_gradient():
    model = adapted_model()
    model.layer.up_proj.lora_A.requires_grad_(False)
    x = inputs()
    model(x).sum().backward()
    assert x.grad is None
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def is_joined(model, x):
    """Whether ``model`` computes as one product: its output has our derivative."""
    found, seen = [model(x).grad_fn], set()
    while found:
        node = found.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [parent for parent, _ in node.next_functions]
    return "_DerivativeBackward" in {node.name() for node in seen}


@pytest.mark.parametrize("bias", [False, True])
def test_what_it_gives_may_be_changed_in_place_and_have_any_axes(bias):
    model, x = adapted_model(bias=bias), inputs()
    results = []
    for joined in (True, False):
        join_adapters(model, joined)
        model.zero_grad()
        out = model.layer.up_proj(x)
        out.mul_(2).sum().backward()
        grads = [p.grad for p in model.layer.up_proj.parameters() if p.requires_grad]
        shaped = [model.layer.up_proj(y) for y in (x[0], x[0, 0], x[:, None], x[:, :0])]
        results.append([out, *grads, *shaped])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_adapted_model_is_copied_and_pickled():
    model, x = adapted_model(), inputs()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(x), model(x)) and is_joined(again, x)


def test_what_is_not_plain_lora_is_pefts():
    x = inputs().requires_grad_()
    model = adapted_model()
    assert is_joined(model, x)
    assert all(isinstance(m, Linear) for m in adapter_modules(model))
    for module in adapter_modules(model):
        module.enable_adapters(False)
    assert not is_joined(model, x)
    for module in adapter_modules(model):
        module.enable_adapters(True)
    assert is_joined(model, x)
    for module in adapter_modules(model):
        module.merge()
    assert not is_joined(model, x)

    dropping = adapted_model(dropout=0.5)
    assert not is_joined(dropping.train(), x)
    assert is_joined(dropping.eval(), x)

    mixed = adapted_model(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_joined(mixed, x.float())
    mixed.layer.up_proj.base_layer.weight.requires_grad_()
    join_adapters(mixed.layer.down_proj, False)
    assert not is_joined(mixed, x.float())


def test_a_layer_of_another_kind_is_pefts():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = Model()
    model.layer.up_proj = Doubled(WIDE, INSIDE, bias=False, dtype=torch.float64)
    add_adapters(model.double(), LoraConfig(rank=RANK, targets=("up_proj",)), "layer", ())
    assert not is_joined(model, inputs().requires_grad_())

"""Mistakes that are planted, and must be seen."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from .fake_cuda import HostSync, WrongDevice, pretended
from .parts import Base, speak, train


class _Planted(nn.Module):
    """A final norm with a mistake behind it."""

    def __init__(self, norm, mistake):
        super().__init__()
        self.norm, self.mistake = norm, mistake

    def forward(self, hidden):
        return self.mistake(self.norm(hidden))


def cpu_index(hidden):
    return hidden[torch.arange(len(hidden))]


def item(hidden):
    return hidden * hidden.detach().sum().item()


def implicit_bool(hidden):
    return hidden if (hidden > 0).all() else -hidden


def cpu_copy(hidden):
    return hidden + hidden.detach().cpu().to(hidden.device, non_blocking=True)


def data_dependent(hidden):
    return hidden + hidden.detach()[hidden.detach() > 0].sum()


def cpu_buffer(hidden):
    return hidden * torch.ones(hidden.shape[-1])


class _OnTheHost(torch.autograd.Function):
    """Right forward, and in the backward pass a gradient through a tensor of the host."""

    @staticmethod
    def forward(ctx, hidden):
        return hidden.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.ones(gradient.shape[-1])


MISTAKES = {
    "an index on the CPU": (cpu_index, WrongDevice),
    "a factor on the CPU": (cpu_buffer, WrongDevice),
    "a tensor on the CPU in a backward formula": (_OnTheHost.apply, WrongDevice),
    "`.item()`": (item, HostSync),
    "an implicit bool": (implicit_bool, HostSync),
    "`.cpu()`": (cpu_copy, HostSync),
    "a shape that depends on data": (data_dependent, HostSync),
}
"""What is planted behind the final norm of a step -> (it, what it must be seen as)."""


def told() -> dict[str, tuple[bool, str]]:
    """Mistake -> (whether it was seen, what was said)."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, pretended():
        base = Base("llava15", Path(folder))
        for name, (mistake, kind) in MISTAKES.items():
            found[name] = seen(base, mistake, kind)
    with pretended():
        found["a collective on the CPU"] = collective_on_the_host()
    return found


def seen(base: Base, mistake, kind: type[Exception]) -> tuple[bool, str]:
    """Whether a step with ``mistake`` behind its final norm ends as ``kind``."""

    def plant(scorer):
        scorer.norm = _Planted(scorer.norm, mistake)

    try:
        train(base, "lora", "sdpa", torch.bfloat16, plant)
    except kind as error:
        return True, str(error).replace("|", "/")
    return False, "nothing was said"


def collective_on_the_host() -> tuple[bool, str]:
    """The reductions again, with one more of a tensor of the host."""

    def more():
        torch.distributed.all_reduce(torch.zeros(2))

    devices = {device for _, device in speak(extra=more).collectives}
    return "cpu" in devices, f"devices: {', '.join(sorted(devices))}"

"""What is compiled, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_DISABLED = "TORCHDYNAMO_DISABLE"
"""torch's variable of the environment: ``torch.compile`` gives what it is given."""


def compile_layers(layers: Iterable[nn.Module]) -> None:
    """Compiles what lies around each layer's attention, once for all lengths of rows."""
    for layer in layers:
        layer.compile(dynamic=True)


@contextmanager
def without_a_compiler() -> Iterator[None]:
    """Inside, ``torch.compile`` compiles nothing, and loads nothing to compile with. Modules that compile functions as they are
    imported (of DeepSpeed 0.19.8 and bitsandbytes 0.50) make every process load torch's inductor and what else there is of
    compilers, 1.5 s of each start, for functions that nobody calls."""
    if not hasattr(torch.compiler, "set_default_backend"):  # torch before 2.13
        yield
        return
    before, disabled = torch.compiler.get_default_backend(), os.environ.get(_DISABLED)
    torch.compiler.set_default_backend(_as_it_is)
    os.environ[_DISABLED] = "1"
    try:
        yield
    finally:
        torch.compiler.set_default_backend(before)
        del os.environ[_DISABLED]
        if disabled is not None:
            os.environ[_DISABLED] = disabled


def _as_it_is(graph: Any, _: Any) -> Any:
    """A backend of ``torch.compile`` that compiles nothing. Asked by name for its own of that kind, torch loads all of them."""
    return graph

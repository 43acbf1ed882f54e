"""What is known of the values of tensors on the fake GPU: all that follows from what was on the host, and no weight.

The value of a tensor on the fake GPU is a tensor of the host, its ``known``. A view's is a view of it, so that what is written
into one is seen in the other, as on a GPU.
"""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map_only


def on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"


def known(tensor: torch.Tensor) -> torch.Tensor | None:
    """The value of a tensor: a host's own, of a GPU's what is known of it."""
    if not on_gpu(tensor):
        return tensor
    value = getattr(tensor, "known", None)
    return None if value is None or hasattr(value.untyped_storage(), "overwritten") else value


def follows(func, tensors: list[torch.Tensor]) -> bool:
    """Whether the value of what ``func`` makes of ``tensors`` is known: theirs are, and nothing is drawn."""
    drawn = torch.Tag.nondeterministic_seeded in func.tags
    return not drawn and all(known(x) is not None for x in tensors)


def computed(func, args, kwargs):
    """What ``func`` gives of the known values. What it writes into is written into."""
    args, kwargs = tree_map_only(torch.Tensor, known, (args, kwargs))
    if "device" in kwargs:
        kwargs = kwargs | {"device": "cpu"}
    with unset_fake_temporarily():
        return func(*args, **kwargs)


def remember(func, tensors, args, kwargs, made):
    """``made`` by ``func``, with its value where that is known; into what something unknown was written is known no more."""
    if follows(func, tensors):
        values = computed(func, args, kwargs)
        for one, value in zip(tree_leaves(made), tree_leaves(values), strict=True):
            if isinstance(one, FakeTensor):
                one.known = value
    else:
        forget(func, args, kwargs)
    return made


def forget(func, args, kwargs) -> None:
    """Of the tensors that ``func`` writes into, and of all views of them, nothing is known any more."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args)) | kwargs
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            for tensor in tree_leaves(given.get(argument.name)):
                if isinstance(tensor, torch.Tensor) and on_gpu(tensor) and known(tensor) is not None:
                    known(tensor).untyped_storage().overwritten = True


def number(value: float, dtype: torch.dtype):
    """``value`` as ``.item()`` of a tensor of ``dtype`` gives it."""
    if dtype == torch.bool:
        return bool(value)
    return float(value) if dtype.is_floating_point else int(value)

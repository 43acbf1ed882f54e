"""A GPU that is none: CUDA tensors without data, beside the real ones of the CPU.

torch's ``FakeTensorMode`` knows of every operation the shape, the dtype and the device that it has on a GPU. Here only what is on
the GPU is fake; what is on the host stays real, as in a run, where layouts and positions are computed there. What a kernel
would refuse is an error: a tensor of the host among those of the GPU, and, unless it is allowed, an operation that waits for
the GPU's answer.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers.utils import import_utils

from .values import computed, follows, forget, known, number, on_gpu, remember

CAPABILITY = (9, 0)
"""Of the GPU that is played: Hopper, on which every kernel runs."""
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_INDEXED = {
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
_MASKS = (torch.bool, torch.uint8)
_INDEXING = _INDEXED | {torch.ops.aten.index.Tensor}
_ASKS = ("svco", "transformers", "peft", "gpu_dry")
"""Whose questions whether there is a GPU are answered with yes; torch itself would look for its driver."""


class _Event:
    """A moment of the GPU's."""

    def __init__(self, **_):
        pass

    def record(self):
        pass

    def elapsed_time(self, _) -> float:
        return 1.0


class WrongDevice(Exception):
    """A tensor of the host among those of the GPU."""


class HostSync(Exception):
    """The host would wait for the GPU."""


class FakeCuda(TorchDispatchMode):
    """Inside, ``cuda`` is a GPU without data.

    A value that is known on the host stays known on the GPU (``values.py``) through operations whose every input is: token ids,
    masks, pixels. Where waiting is allowed such a value is the answer, and another is made up.
    """

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.operations = 0
        """On the GPU, so far."""
        self.waits: Counter[str] = Counter()
        """Where the host waited for the GPU, which was allowed -> how often."""
        self.blocking: Counter[str] = Counter()
        """Where, not in svco, memory of the host was copied to the GPU by a copy that waits -> how often."""
        self.collectives: list[tuple[str, str]] = []
        """(name, device) of the tensors of each collective."""
        self._keeping = ExitStack()
        self._made_up: float | Callable[[], float] | None = None
        self._pinned: set[int] = set()
        self._kept: list[torch.Tensor] = []  # an id is that of one tensor only as long as it lives

    def __enter__(self):
        self._keeping.enter_context(parameters_stay_who_they_are())
        self._keeping.enter_context(patch.object(torch, "tensor", _of_numbers))
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *problem):
        super().__exit__(*problem)
        self.fake.__exit__(*problem)
        self._keeping.close()

    @contextmanager
    def waiting(self, made_up: float | Callable[[], float] | None = 0):
        """Inside, the host may wait, and an answer that is not known is ``made_up``, or what it gives; None: it may not."""
        before, self._made_up = self._made_up, made_up
        try:
            yield
        finally:
            self._made_up = before

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._pinned

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in tensors if on_gpu(x)]
        if func.namespace == "c10d":
            return self._collective(func, tensors, args, kwargs)
        if func is torch.ops.aten._pin_memory.default:
            return self._pin(args[0])
        if func is torch.ops.aten.is_pinned.default:
            return self.is_pinned(args[0])
        if not there and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self.operations += 1
        if func in _COPIES:
            return self._copy(func, tensors, args, kwargs)
        if func in _INDEXING and self._made_up is not None:
            args = (args[0], self._places(args[1]), *args[2:])
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if strangers := [x for x in tensors if not on_gpu(x) and x.dim()]:
            raise WrongDevice(f"{func} is given a tensor {tuple(strangers[0].shape)} of the host {where()}")
        if func in _INDEXED and any(x.dtype in _MASKS for x in args[1] if x is not None):
            return self._wait(func, tensors, args, kwargs)
        try:
            made = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self._wait(func, tensors, args, kwargs)
        return remember(func, tensors, args, kwargs, made)

    def _copy(self, func, tensors, args, kwargs):
        source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
        target = kwargs.get("device") or source.device if func is torch.ops.aten._to_copy.default else args[0].device
        asynchronous = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])
        if on_gpu(source) and torch.device(target).type != "cuda":
            return self._wait(func, tensors, args, kwargs)
        if not on_gpu(source) and source.dim() and not asynchronous:
            place = where()
            if self._made_up is None and place.startswith("(svco/"):
                raise HostSync(f"a copy to the GPU without non_blocking waits for all that it is doing {place}")
            self.blocking[place] += 1
        made = func(*args, **kwargs)
        if isinstance(source, torch.nn.Parameter):
            return made
        return remember(func, tensors, args, kwargs, made)

    def _places(self, indices):
        """``indices`` as a GPU takes them where the host may wait: the host's copied, a mask as the places that it names."""
        places, frame = [], where()
        for index in indices:
            mask = index is not None and index.dtype in _MASKS
            if index is None or on_gpu(index) and (not mask or known(index) is None):
                places.append(index)
                continue
            (self.waits if on_gpu(index) else self.blocking)[frame] += 1
            with unset_fake_temporarily():
                values = known(index).nonzero().unbind(1) if mask else [known(index)]
            places += map(self._there, values)
        return places

    def _there(self, value):
        """``value`` on the GPU."""
        made = self.fake.from_tensor(value).to("cuda")
        made.known = value
        return made

    def _wait(self, func, tensors, args, kwargs):
        """The answer of an operation that waits."""
        place = where()
        if self._made_up is None:
            raise HostSync(f"{func} makes the host wait for the GPU {place}")
        self.waits[place] += 1
        if follows(func, tensors):
            answer = computed(func, args, kwargs)
            if not isinstance(answer, torch.Tensor) or func in _COPIES:
                return answer
            return self._there(answer)
        if func in _INDEXED:
            forget(func, args, kwargs)
            return func(*args, **kwargs)
        value = self._made_up() if callable(self._made_up) else self._made_up
        if func in _COPIES:
            with unset_fake_temporarily():
                dtype = kwargs.get("dtype") or args[0].dtype
                made = torch.full(tensors[-1].shape, value, dtype=dtype)
                return made if func is torch.ops.aten._to_copy.default else args[0].copy_(made)
        if func is torch.ops.aten._local_scalar_dense.default:
            return number(value, args[0].dtype)
        return bool(value)

    def _pin(self, tensor):
        with unset_fake_temporarily():
            made = tensor.clone()
        self._pinned.add(id(made))
        self._kept.append(made)
        return made

    def _collective(self, func, tensors, args, kwargs):
        """The fake group's answer: what was given, unchanged."""
        devices = {x.device.type for x in tensors}
        self.collectives.append((func.__name__.removesuffix(".default"), "+".join(sorted(devices))))
        with unset_fake_temporarily():
            stand_ins = tree_map_only(FakeTensor, lambda x: torch.zeros(x.shape, dtype=x.dtype), (args, kwargs))
            made = func(*stand_ins[0], **stand_ins[1])
        # (tensors, work) or work alone: the work is done.
        return (args[0], made[1]) if isinstance(made, tuple | list) and len(made) == 2 else made


@contextmanager
def parameters_stay_who_they_are():
    """Inside, ``Module.to`` leaves every Parameter the object that it was, as it does on a GPU.

    There it sets ``.data``, which fake tensors refuse: for them it makes a new Parameter in each module, so that what two hold
    is two afterwards, and of what a module outside holds, one stays behind on the host. torch's other way, to swap the contents
    of old and new, is of the same effect. It refuses tensors of which weak references are kept: here those of the fake mode's
    own memory of what it was given and has made, which it asks for neither again.
    """
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with patch.object(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda _: [])):
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


_tensor = torch.tensor


def _of_numbers(data, *args, **kwargs):
    """``torch.tensor``, which reads tensors among ``data`` where they are, past any mode: they are read before."""
    if isinstance(data, list | tuple):
        data = tree_map_only(FakeTensor, lambda x: x.cpu(), data)
    return _tensor(data, *args, **kwargs)


def where() -> str:
    """The last frame that is not torch's nor this file's."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/site-packages/torch/" not in path and path != __file__:
            for root in ("/svco/", "/transformers/", "/peft/", "/tests/"):
                if root in path:
                    path = root[1:] + path.split(root, 1)[1]
                    break
            return f"({path}:{frame.f_lineno}, {frame.f_code.co_name})"
        frame = frame.f_back
    return ""


@contextmanager
def pretended():
    """Inside, svco and transformers are told that there is a Hopper GPU with nothing on it."""
    real = torch.cuda.is_available

    def available() -> bool:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        return True if asking.split(".")[0] in _ASKS else real()

    with ExitStack() as stack:
        for name, answer in {
            "is_available": available,
            "current_device": lambda: 0,
            "get_device_capability": lambda *_: CAPABILITY,
            "synchronize": lambda *_: None,
            "max_memory_allocated": lambda *_: 0,
            "reset_peak_memory_stats": lambda *_: None,
            "Event": _Event,
        }.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        _forget_answers()
        stack.callback(_forget_answers)
        yield


def _forget_answers() -> None:
    """transformers keeps what it was told of GPUs and of packages for them."""
    for name, function in vars(import_utils).items():
        if name.startswith("is_") and hasattr(function, "cache_clear"):
            function.cache_clear()

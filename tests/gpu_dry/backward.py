"""The backward pass without autograd's engine, which asks for a real device: the same nodes, called one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

import torch

Node = Any


def gradients(loss: torch.Tensor) -> dict[torch.Tensor, torch.Tensor]:
    """Leaf -> gradient of the scalar ``loss``: every node of its graph is called once, when all that reaches it is there.

    On real tensors the same numbers as ``loss.backward()``; hooks, which only the engine calls, are left out. As there a
    gradient is summed to the shape of what it belongs to and takes its dtype, and one on another device is an error.
    """
    root = loss.grad_fn
    received: dict[Node, dict[int, torch.Tensor]] = {root: {0: torch.ones_like(loss)}}
    found: dict[torch.Tensor, torch.Tensor] = {}
    missing, ready = _edges_into(root), [root]
    # As of one pass of the engine: else a recomputed layer is recomputed for every tensor that it kept.
    with torch.no_grad(), patch.object(torch._C, "_current_graph_task_id", lambda: 1):
        while ready:
            node = ready.pop()
            given = received.pop(node, {})
            if hasattr(node, "variable"):
                found[node.variable] = given[0]
                continue
            for (reached, place), gradient in zip(node.next_functions, _called(node, given), strict=True):
                if reached is None:
                    continue
                if gradient is not None:
                    box, gradient = received.setdefault(reached, {}), _fitted(gradient, reached, place)
                    box[place] = box[place] + gradient if place in box else gradient
                missing[reached] -= 1
                if not missing[reached]:
                    ready.append(reached)
    return found


def _edges_into(root: Node) -> Counter[Node]:
    """How many edges lead to each node of the graph."""
    counted: Counter[Node] = Counter()
    seen, todo = {root}, [root]
    while todo:
        for node, _ in todo.pop().next_functions:
            counted[node] += node is not None
            if node is not None and node not in seen:
                seen.add(node)
                todo.append(node)
    return counted


def _called(node: Node, given: dict[int, torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """What ``node`` makes of the gradients of its outputs: one for each of its inputs, or None."""
    if not given:
        return (None,) * len(node.next_functions)
    outputs = [given.get(place) for place in range(len(node._input_metadata))]
    call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
    answers = call(*outputs)
    answers = answers if isinstance(answers, tuple) else (answers,)
    # A Function of Python's also answers for inputs that are no tensors, to which no edge leads: they stand last, and are None.
    beyond = answers[len(node.next_functions) :]
    if any(answer is not None for answer in beyond):
        raise TypeError(f"{node.name()} gives a gradient to something that is no tensor")
    return answers[: len(node.next_functions)]


def _fitted(gradient: torch.Tensor, node: Node, place: int) -> torch.Tensor:
    """``gradient`` as the output ``place`` of ``node`` has it."""
    wanted = node._input_metadata[place]
    if gradient.device != wanted.device:
        raise TypeError(f"{node.name()} is given a gradient on {gradient.device}, and its output is on {wanted.device}")
    if gradient.shape != torch.Size(wanted.shape):
        gradient = gradient.sum_to_size(*wanted.shape) if len(wanted.shape) else gradient.sum()
    return gradient.to(wanted.dtype)

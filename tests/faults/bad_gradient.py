"""S-VCO's attend term whose gradient, in the third step, is not a number while its loss is one.

``python bad_gradient.py KEY=VALUE …``.
"""

import sys

import torch

from svco import Term, load_recipe, register, train
from svco.basics.errors import exit_codes
from svco.basics.views import BLIND, MATCH

STEP = 3
steps = 0


def link(margins: torch.Tensor) -> torch.Tensor:
    global steps
    steps += margins.requires_grad
    losses = torch.nn.functional.softplus(-margins)
    if steps == STEP:
        losses = losses + 0 * torch.sqrt(margins - margins.detach())  # 0, whose slope is 0 times infinity
    return losses


@register("bad_gradient", "attend, with one gradient that is not a number", sides="first", combine="mean")
def bad_gradient(side, config):
    return [Term("attend", side, {(side, MATCH): 1, (side, BLIND): -1}, link=link)]


if __name__ == "__main__":
    with exit_codes():
        train(load_recipe("tiny", sys.argv[1:]))

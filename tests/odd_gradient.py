"""An objective whose loss is finite and whose gradient is not: NaN for the pairs whose margin has grown beyond a limit."""

import runpy

import torch
from places import ROOT

import svco
from svco.basics.views import BLIND, MATCH

LIMIT = 0.05
"""β nats. At the first step every margin is 0."""


def odd(margins):
    return -torch.nn.functional.logsigmoid(margins) + 0 * torch.where(margins > LIMIT, 0 * margins, 1.0).sqrt()


@svco.register("odd-gradient", "for a test", sides="both", combine="sum")
def odd_gradient(side, _config):
    return [svco.Term("attend", side, {(side, MATCH): 1, (side, BLIND): -1}, link=odd)]


if __name__ == "__main__":
    runpy.run_path(str(ROOT / "launchers" / "train.py"), run_name="__main__")

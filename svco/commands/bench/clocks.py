"""What steps are timed by."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ...basics.dist import World


def clock_of(world: World) -> Callable[[], float]:
    """What a step is timed by, in seconds. Of one process with one thread on a CPU the processor's own time: it is the same
    whoever else uses the machine."""
    alone = world.size == 1 and world.device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter

"""Run by test_leaving.py on two ranks: a gather that rank 1 joins half a second late, then an interpreter that leaves at once.

Argument: ``stop``, or ``destroy`` for what leaves without waiting (the control).
"""

# ruff: noqa: E402
import atexit
import ctypes

# Registered first, so called last: the interpreter's lock is held up to the moment from which no other thread gets it any more.
atexit.register(ctypes.PyDLL(None).usleep, 4_000_000)

import sys
import time

import torch
import torch.distributed

from svco import engine
from svco.basics.dist import world_from_environment

world = world_from_environment()
engine.start(world)
# As DeepSpeed has: not the default group, and kept for as long as the process lives.
group = torch.distributed.new_group(range(world.size))
time.sleep(0.5 * world.rank)
whole, own = torch.empty(8), torch.ones(4)
torch.distributed.all_gather_into_tensor(whole, own, group=group, async_op=True)
del whole, own
if sys.argv[-1] == "stop":
    engine.stop()
else:
    torch.distributed.destroy_process_group()

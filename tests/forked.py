"""Programs as forks of one process that has their imports done: of a short run most is its start, and of a start its imports.

What a fork runs is the program as it is started otherwise, in a session of its own, with an environment of its own and its output
in a file. What is claimed of a launcher or of the interpreter's own end is shown by programs that are started anew.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from places import ROOT

PRELOADED = (
    *("svco.cli", "svco.run.train", "svco.run.outcome", "svco.run.start", "svco.scores.sheet", "svco.export.merge"),
    *("svco.families.llava", "svco.families.text", "svco.tiny_world.contrast"),
    *("torch", "torch.utils.tensorboard", "matplotlib.pyplot", "peft", "webdataset", "safetensors.numpy"),
    *("transformers.models.llava.modeling_llava", "transformers.models.clip.modeling_clip"),
    *("transformers.models.clip.image_processing_pil_clip", "transformers.models.llama.modeling_llama"),
    *("deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"),
)


class Forks:
    """The fork server: a fresh process that has imported the product and run nothing of it. Started at first use, once a Python
    process."""

    def __init__(self) -> None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def start(
        self,
        arguments: list[str],
        output: Path,
        environment: dict[str, str],
        first: Callable[[], None] | None = None,
    ) -> BaseProcess:
        """``python ARGUMENTS`` in the folder of the repository, with ``environment`` added to this process's. ``first``
        (picklable) runs in it before. What it says goes to the end of ``output``."""
        worker = self._context.Process(target=_be, args=(arguments, str(output), dict(os.environ) | environment, first))
        worker.start()
        return worker


forks = Forks()


def _be(arguments: list[str], output: str, environment: dict[str, str], first: Callable[[], None] | None) -> None:
    """Becomes the program ``arguments``."""
    os.setsid()
    told = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    multiprocessing.set_start_method(None, force=True)  # its own children start as they would anywhere else
    if first:
        first()
    sys.argv = arguments
    # As the interpreter ends a program: multiprocessing would take its own way out, with its own words for an exception.
    code = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.exit(code)


def worlds(count: int, port: int) -> list[dict[str, str]]:
    """What a launcher tells each of ``count`` ranks on this machine, in variables of the environment."""
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    told |= {"LOCAL_WORLD_SIZE": str(count), "LOCAL_SIZE": str(count)}
    return [told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def run_forked(
    arguments: list[str], environments: list[dict[str, str]], timeout: float
) -> tuple[list[int | None], str]:
    """``python ARGUMENTS`` once for each of ``environments``, to their ends: (exit codes, what they say). As under a launcher an
    error of one ends the others; after ``timeout`` seconds all are ended."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "said.txt"
        workers = [forks.start(arguments, output, environment) for environment in environments]
        deadline = time.monotonic() + timeout
        try:
            while any(worker.exitcode is None for worker in workers) and time.monotonic() < deadline:
                wait([worker.sentinel for worker in workers if worker.exitcode is None], deadline - time.monotonic())
                if any(worker.exitcode for worker in workers):
                    break
        finally:
            for worker in workers:
                if worker.exitcode is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.join()
        return [worker.exitcode for worker in workers], output.read_text(errors="replace")

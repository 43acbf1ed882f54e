"""Plain DPO beside other people's trainers: the same weights, pairs and adapters, a process and a thread each, steps in turn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole, writing
from ...basics.markdown import markdown
from ...basics.strict_json import json_text
from ...model.lora import target_names
from ...objectives.table import make_objective
from ...recipe.config import LoraConfig, ObjectiveConfig
from .ladder import PRODUCT, ROWS, Tune
from .run import Bench, Measured, Plan
from .shapes import TINY, random_model

WORKER = Path(__file__).with_name("rival_worker.py")
KINDS = {
    "trl": {"trl": "TRL, as it runs on a CPU", "trl-labelled": "TRL, scoring labelled positions alone as on a GPU"},
    "swift": {"swift": "ms-swift, padded", "swift-unpadded": "ms-swift, without padding"},
}
"""``--peer`` -> what its worker is asked for, and how tables say it."""


@dataclass
class Rival:
    """A trainer in a process of its own."""

    name: str
    """As in tables."""
    process: subprocess.Popen[str]
    """Answers a line with a step."""
    seconds: list[float] = field(default_factory=list)
    """Processor time of every step."""
    losses: list[float] = field(default_factory=list)
    """Before every step; the learning rate is 0."""
    peak: float = 0.0
    """Bytes of memory at most."""

    def step(self, log: Path) -> None:
        """One step; UserError when the process is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(file=self.process.stdin, flush=True)
            told = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise UserError(f"{self.name} ended; its last words:\n{log.read_text()[-1500:]}") from None
        self.seconds.append(told["seconds"])
        self.losses.append(told["loss"])
        self.peak = told["peak"]


def duel(peer: str, python: str, plan: Plan, world: World) -> str:
    """Our steps and those of ``peer``, run by ``python``, in turn; the report. UserError unless first losses agree to 1e-5."""
    package = {"trl": "trl", "swift": "swift"}[peer]
    if not is_there(python, package):
        raise UserError(
            f"--peer {peer}: {python} cannot import {package}. Install it in an environment of its own (launchers/README.md) and "
            "give its Python as --peer-python."
        )
    torch.set_num_threads(1)
    bench = Bench(plan, make_objective(ObjectiveConfig(name="dpo")), None, world)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        ours = bench.enter(ROWS[PRODUCT], Measured(PRODUCT), None)
        hand_over(folder, bench, {name: ours.engine.gather(name) for name in ours.engine.trainable})
        rivals = [start(kind, name, python, folder, stack) for kind, name in KINDS[peer].items()]
        forget_peak()
        for _ in range(plan.repetitions + 1):
            ours.timed_step()
            for rival in rivals:
                rival.step(folder / f"{rival.name}.log")
    for rival in rivals:
        if abs(rival.losses[0] / ours.result.loss - 1) > 1e-5:
            raise UserError(f"The first losses differ: {ours.result.loss} here and {rival.losses[0]} in {rival.name}.")
    return report(plan, ours.result, rivals)


def forget_peak() -> None:
    """Our process has made a second model for the others: what it needed at most counts from here on."""
    asked = Path("/proc/self/clear_refs")
    with suppress(OSError), writing(asked):  # its errors are OSErrors too
        asked.write_text("5")


def peak_bytes() -> float:
    """The most memory of this process since ``forget_peak``."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * float(found[1]) if found else float("nan")


def is_there(python: str, package: str) -> bool:
    """Whether ``python`` finds ``package``."""
    look = f"import sys, importlib.util; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", look], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


def hand_over(folder: Path, bench: Bench, adapters: dict[str, torch.Tensor]) -> None:
    """Writes model, adapters, batch and settings into ``folder``."""
    from transformers import AutoProcessor

    model: Any = random_model(bench.shape, "sdpa", bench.dtype, torch.device("cpu"))
    plain = {name.replace(".default", ""): x.contiguous() for name, x in adapters.items()}
    with writing(folder):
        model.save_pretrained(folder / "model")
        AutoProcessor.from_pretrained(TINY).save_pretrained(folder / "model")
        save_file(plain, folder / "adapters.safetensors")
        save_file(trl_batch(bench), folder / "batch.safetensors")
    names = target_names(model.get_submodule("model.language_model"), LoraConfig().targets)
    targets = rf".*\blanguage_model\..*\b({'|'.join(names)})"
    rank = min(Tune(full=False).rank, bench.shape.hidden // 8)
    job = {"pairs": bench.plan.pairs, "rank": rank, "alpha": 2 * Tune(full=False).rank, "targets": targets}
    write_whole(folder / "job.json", json_text(job))


def trl_batch(bench: Bench) -> dict[str, torch.Tensor]:
    """The pairs as TRL's collator lays them out: chosen (response 0), then rejected (response 1), all under image 0."""
    rows, starts = [], []
    for side in (0, 1):
        for pair in bench.pairs:
            prefix, response = pair.text.prefixes[0], pair.text.responses[side]
            rows.append(torch.cat([torch.from_numpy(prefix), torch.from_numpy(response)]))
            starts.append(len(prefix))
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for r, (row, start) in enumerate(zip(rows, starts)):
        ids[r, : len(row)], mask[r, : len(row)], completion[r, start : len(row)] = row, 1, 1
    pixels = torch.stack([pair.images[0] for pair in bench.pairs] * 2)
    return {"input_ids": ids, "attention_mask": mask, "completion_mask": completion, "pixel_values": pixels}


def start(kind: str, name: str, python: str, folder: Path, stack: ExitStack) -> Rival:
    """A worker, which ends with ``stack``."""
    with writing(folder):
        log = stack.enter_context((folder / f"{name}.log").open("w"))
    line = [python, str(WORKER), kind, str(folder)]
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WORLD_SIZE", "RANK")}
    process = subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=alone | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return Rival(name, process)


def report(plan: Plan, ours: Measured, rivals: list[Rival]) -> str:
    """Seconds of the processor, and memory."""
    mine = median(ours.seconds[1:])
    table = [["", "median step, processor seconds", "of svco's", "loss of step 0", "peak of the process, GB"]]
    table.append(["svco", f"{mine:.3g}", "1.00", f"{ours.loss:.6f}", f"{peak_bytes() / 1e9:.2f}"])
    for rival in rivals:
        took = median(rival.seconds[1:])
        table.append(
            [rival.name, f"{took:.3g}", f"{took / mine:.2f}", f"{rival.losses[0]:.6f}", f"{rival.peak / 1e9:.2f}"]
        )
    cut = plan.cut_shape.cut or "nothing cut"
    return "\n".join(
        [
            f"### Plain DPO beside others: {plan.shape}, LoRA, {plan.pairs} pair(s) a step",
            "",
            "A process and a thread each, without DeepSpeed, all layers recomputed, "
            f"{plan.repetitions} steps each in turn ({cut}).",
            "",
            markdown(table),
        ]
    )

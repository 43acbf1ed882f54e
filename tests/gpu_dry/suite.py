"""``make gpu-dry``: plays every family on a GPU that is none and writes what held (tests/README.md).

``PYTHONPATH=tests python -m gpu_dry.suite [--families NAME ...] [--out FILE]``, with a CUDA build of torch and without a GPU.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import tiny_families
import torch
import transformers
from places import ROOT

from svco.basics.errors import first_line
from svco.basics.markdown import markdown

from . import controls
from .fake_cuda import pretended
from .parts import ATTENTIONS, DTYPES, TUNES, Base, Played, answer, evaluate, speak, train


@dataclass
class Outcome:
    """What became of everything."""

    cells: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """(family, column) -> dtype -> ``ok``, or why not."""
    waits: Counter[str] = field(default_factory=Counter)
    """Where the host waited for the GPU -> in how many parts."""
    blocking: Counter[str] = field(default_factory=Counter)
    """Where, not in svco, a copy to the GPU waits -> in how many parts."""
    operations: int = 0
    """On the GPU."""
    seconds: float = 0.0
    """Of a processor."""

    def play(self, name: str, column: str, dtype: str, part: Callable[[], Played]) -> None:
        began = time.process_time()
        try:
            with pretended():
                played = part()
        except Exception as error:
            traceback.print_exc(limit=-6)
            self.cells.setdefault((name, column), {})[dtype] = f"**{type(error).__name__}: {first_line(error)}**"
        else:
            self.cells.setdefault((name, column), {})[dtype] = "ok"
            self.operations += played.operations
            self.waits.update(played.waits.keys())
            self.blocking.update(place for place in played.blocking if not place.startswith("(tests/"))
        took = time.process_time() - began
        self.seconds += took
        print(f"{name}, {column}, {dtype}: {self.cells[name, column][dtype]} ({took:.1f} s)", flush=True)

    def add(self, other: Outcome) -> None:
        """Takes what ``other`` has seen."""
        self.cells |= other.cells
        self.waits += other.waits
        self.blocking += other.blocking
        self.operations += other.operations
        self.seconds += other.seconds

    @property
    def failed(self) -> list[tuple[str, str]]:
        return [cell for cell, kinds in self.cells.items() if any(told != "ok" for told in kinds.values())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(tiny_families.BASES)
    parser.add_argument("--families", nargs="*", default=known, choices=known, metavar="NAME", help="only these")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the page to write (default: launchers/results/<date>_gpu_dry.md)")
    asked = parser.parse_args()
    if torch.version.cuda is None or torch.cuda.is_available():
        print(
            "This wants a CUDA build of torch and no GPU: make gpu-dry makes its environment. With a GPU: launchers/gpu_check.py."
        )
        return 2
    out = asked.out or ROOT / "launchers" / "results" / f"{time.strftime('%Y-%m-%d')}_gpu_dry.md"
    without_kernels()
    with pretended():
        collectives = sorted(set(speak().collectives))
    outcome = Outcome()
    with ProcessPoolExecutor(asked.workers, get_context("spawn"), initializer=without_kernels) as pool:
        telling = pool.submit(controls.told)
        for found in pool.map(family, asked.families):
            outcome.add(found)
            told = telling.result()
            out.write_text(page(outcome, told, collectives))
    strange = [name for name, device in collectives if device != "cuda"]
    broken = [*outcome.failed, *(name for name, (seen, _) in told.items() if not seen), *strange]
    print(f"\n{out}: {'all of it held' if not broken else f'broken: {broken}'}")
    return 1 if broken else 0


def family(name: str) -> Outcome:
    """Everything of one family."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = Outcome()
        play_all(outcome, name, Base(name, Path(folder)))
        return outcome


def play_all(outcome: Outcome, name: str, base: Base) -> None:
    """Every part of the family ``name``."""
    for dtype in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        for attention in ATTENTIONS:
            for tune in TUNES:
                outcome.play(name, f"{tune}, {attention}", kind, lambda: train(base, tune, attention, dtype))  # noqa: B023
            outcome.play(name, f"evaluation, {attention}", kind, lambda: evaluate(base, attention, dtype))  # noqa: B023
    outcome.play(name, "answers", "bfloat16", lambda: answer(base, torch.bfloat16))


def without_kernels() -> None:
    """flash-attn's own Python without its kernels, which nothing here calls: with FLASH_ATTENTION_SKIP_CUDA_BUILD it has none."""
    warnings.simplefilter("ignore")
    sys.modules.setdefault("flash_attn_2_cuda", types.ModuleType("flash_attn_2_cuda"))


_PROVEN = """
What was played, each on the tiny base of a family (`tests/tiny_families.py`: the true classes), is the run's own code:
`make_job`, its loader, `pin_memory`, `PackedBatch.to`, `take_step` with its clock and tally, the plain engine with AdamW,
then `score_pairs` with the table of measures, and `ask` with an image and without. The first layer is recomputed. CUDA
tensors are torch's `FakeTensor`s: every operation says which shape, dtype and device it gives; what is computed on the host
is real. `flash` is flash-attn's own Python without its kernels, `varlen` torch's own operator.

**ok** means: no tensor of the host among those of the GPU (scalars may be); no host sync between the batch and the end of the
backward pass (`.item()`, an implicit bool, `.cpu()`, data-dependent shapes, masks as indices, and in svco's own code copies
to the GPU that block); every tensor of a batch pinned before and on the GPU after; as many parameters get a gradient as on
the CPU by autograd itself, each on its parameter's device and in its dtype.

The backward pass: autograd's engine asks for a device, so every node of the graph is called by itself, one after another, in
its order (`tests/gpu_dry/backward.py`; on the CPU the same gradients to the last bit). That runs all backward formulas, of
torch, of the kernels and of svco's own functions, and the recomputation; not the engine's streams and threads, and no hooks.

A parameter that two modules hold (LLaVA-NeXT's and OneVision's newline, a head that is the embedding) stays one as it is moved,
by swapping contents (`torch.__future__.set_swap_module_params_on_conversion`): on a GPU `Module.to` sets `.data`, which fake
tensors refuse. Each step asserts that every name of the policy's and the scorer's leads to the object that it led to before.

In answers transformers' own classes read sizes of images, masks and positions back from the GPU, and index with masks. What
follows from the host alone (ids, masks, sizes, positions, pixels; no weight) is known beside the fake tensor and is the answer;
an index of the host's among tensors of the GPU, which CUDA takes there by a copy that waits, is copied. Made up is only what
the weights would say: whether the answer has ended, twice no and then yes, and which tokens it has. It is counted.

Not proven here: that any kernel exists for these shapes and dtypes, runs, or is right; numbers; speed; memory; CUDA's streams
and the lifetime of pinned memory; NCCL; DeepSpeed's engine (float16's optimiser is its own) and ZeRO's hooks; what ranks
pickle to each other; compiled layers; DataLoader's own pinning thread. `launchers/gpu_check.py` measures the first of these
on a GPU.
"""


def page(outcome: Outcome, told: dict[str, tuple[bool, str]], collectives: list[tuple[str, str]]) -> str:
    """The result as markdown."""
    columns = list(dict.fromkeys(column for _, column in outcome.cells))
    names = list(dict.fromkeys(name for name, _ in outcome.cells))
    rows = [[name, *(_cell(outcome.cells.get((name, column), {})) for column in columns)] for name in names]
    lines = [
        f"# On a GPU that is none, {time.strftime('%Y-%m-%d')}",
        "",
        f"`make gpu-dry`: torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, no GPU. {outcome.operations:,} operations on fake CUDA tensors, "
        f"{outcome.seconds:,.0f} seconds of a CPU core.",
        "",
        markdown([["family", *columns], *rows]),
        "",
        "Steps and evaluations in bfloat16 and float16, answers in bfloat16.",
        _PROVEN,
        "## Controls",
        "",
        markdown(
            [["planted", "seen", "as"], *([name, "yes" if ok else "**no**", said] for name, (ok, said) in told.items())]
        ),
        "",
        "## Collectives",
        "",
        "Among 8 ranks of torch's fake process group: " + ", ".join(f"`{n}` on {d}" for n, d in collectives) + ".",
        "",
        "## Where the host waits",
        "",
        "Allowed, and seen in so many of the parts above:",
        "",
        *(f"- {count}: {place[1:-1]}" for place, count in sorted(outcome.waits.items()) if "svco/" in place),
        "",
        "Copies to the GPU that wait, where waiting is allowed or in transformers' own code:",
        "",
        *(f"- {count}: {place[1:-1]}" for place, count in sorted(outcome.blocking.items())),
    ]
    return "\n".join(lines) + "\n"


def _cell(kinds: dict[str, str]) -> str:
    """``ok`` where every dtype is, else what each says; a dash for what is not played."""
    if not kinds:
        return "–"
    if all(told == "ok" for told in kinds.values()):
        return "ok"
    return "; ".join(f"{kind}: {told}" for kind, told in kinds.items())


if __name__ == "__main__":
    raise SystemExit(main())

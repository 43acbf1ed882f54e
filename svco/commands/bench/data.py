"""Whether the loader keeps up: pairs a process makes in a second against pairs that a step consumes."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np

from ...basics.dist import World
from ...basics.files import write_whole
from ...basics.markdown import markdown
from ...basics.progress import silent
from ...basics.strict_json import json_text
from ...batches.split import Split, make_loader
from ...data.order import GivenOrder
from ...data.pairs import Pair, PairText
from ...data.shards import write_shards
from ...families import Family, load_family
from ...objectives.table import make_objective
from ...recipe.config import Config, ObjectiveConfig
from .clocks import clock_of
from .ladder import PRODUCT, ROWS, Tune
from .run import Bench, Measured, Plan, true_counts
from .shapes import TINY, Shape

ROW = ROWS[PRODUCT]
H100_FLOPS = 989e12
"""Dense bfloat16 FLOP/s of an H100 SXM by its data sheet: no step on one consumes more."""


def bench_data(spec: str, plan: Plan, world: World) -> str:
    """A table: the shards ``spec`` against the tiny model's step here, and photographs at the shape of ``plan`` against a GPU
    that never waits. One process each."""
    rows = [["images", "pairs/s", "a step consumes at most", "ratio"]]
    with tempfile.TemporaryDirectory() as folder:
        family = load_family(str(TINY), 128)
        rows.append(_row(spec, rate(spec, family, Path(folder)), appetite(world), "the tiny model on this CPU"))
        if plan.shape != "tiny":
            shape = plan.true_shape
            write_shards(photographs(32), Path(folder) / "photographs", "train", 32)
            made = rate(str(Path(folder) / "photographs"), large_family(shape, Path(folder) / "base"), Path(folder))
            flops = true_counts(shape, ROW, make_objective(ObjectiveConfig()), Tune(full=False))["flops"]
            whom = f"{plan.shape}, LoRA, on an H100 at all of its 989 TFLOP/s"
            rows.append(_row("640 × 480 JPEGs, two a pair", made, H100_FLOPS / flops, whom))
    how = "One process reads, decodes, tokenises, resizes and packs; run with `data.workers` it has that many."
    return f"### The loader\n\n{how}\n\n{markdown(rows)}"


def _row(images: str, made: float, consumed: float, whom: str) -> list[str]:
    return [images, f"{made:,.0f}", f"{consumed:,.1f} ({whom})", f"{made / consumed:.1f}"]


def rate(spec: str, family: Family, cache: Path, seconds: float = 5.0) -> float:
    """Pairs a second that the product's loader makes of the shards ``spec`` in this process."""
    objective, world = make_objective(ObjectiveConfig()), World()
    split = Split.open((spec,), family, cache, world, silent)
    order = GivenOrder(np.arange(len(split.shards)), 16)
    loader = make_loader(split, order, objective.cells, family, Config(), world, 0, order.steps_per_epoch)
    loader.workers = 0
    clock = clock_of(world)  # the step's, or they could not be compared
    made, began = 0, clock()
    while clock() - began < seconds:
        for step in loader:
            made += step.slots
            if clock() - began > seconds:
                break
    return made / (clock() - began)


def appetite(world: World) -> float:
    """Pairs a second that the product's step consumes of the tiny shape, here."""
    plan = Plan("tiny", pairs=16, repetitions=5)
    contestant = Bench(plan, make_objective(ObjectiveConfig()), None, world).enter(ROW, Measured(ROW.name), None)
    for _ in range(plan.repetitions):
        contestant.timed_step()
    return plan.pairs / median(contestant.result.seconds)


def photographs(count: int, seed: int = 0) -> Iterable[Pair]:
    """Pairs of 640 × 480 JPEGs of smooth random colours with some grain, about as large as photographs are."""
    from PIL import Image

    rng = np.random.default_rng(seed)

    def picture() -> bytes:
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        grain = rng.integers(-12, 13, (480, 640, 1))
        stream = io.BytesIO()
        Image.fromarray((np.asarray(small) + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    words = "There is a red circle on the left and a blue square on the right of the picture. " * 3
    for number in range(count):
        text = PairText(f"photograph-{number:06d}", "What is in the picture?", (words, words.replace("red", "green")))
        yield Pair(text, (picture(), picture()))


def large_family(shape: Shape, folder: Path) -> Family:
    """The tiny base's tokenizer with LLaVA-1.5's own image processing at the size of ``shape``."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(TINY)
    processor.image_processor.size = {"shortest_edge": shape.image}
    processor.image_processor.crop_size = {"height": shape.image, "width": shape.image}
    processor.save_pretrained(folder)
    config = json.loads((TINY / "config.json").read_text())
    config["vision_config"] |= {"image_size": shape.image, "patch_size": shape.patch}
    write_whole(folder / "config.json", json_text(config))
    return load_family(str(folder), 128)

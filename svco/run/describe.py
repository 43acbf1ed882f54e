"""What a run is going to do, in text, before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.dist import World
from ..basics.errors import BadSample
from ..basics.files import SAMPLES
from ..basics.secrets import redacted, redacted_tree
from ..basics.strict_json import json_text
from ..batches.lengths import measured
from ..batches.pack import PackedCollate
from ..recipe.paper import deviations
from .health import NAMED_AT_MOST
from .job import Job

if TYPE_CHECKING:
    import torch


def describe(job: Job, world: World) -> str:
    """The derived values a person checks before a run, with a histogram of the pairs' lengths."""
    lengths, cells = job.train.lengths, job.objective.cells
    costs = PackedCollate(cells).costs(lengths)
    summary = lengths.summary()
    per_step = costs.mean() * job.order.global_batch
    micro = max(1, round(per_step / world.size / job.config.optim.tokens_per_micro_batch + 0.5))
    rows = [
        ("ranks", world.size),
        ("training pairs", f"{summary['pairs']:,} in {len(job.train.shards.shard_sizes)} shards"),
        ("shards checked", f"size, times and {SAMPLES} places of each; every byte: svco data verify"),
        *([("read past", job.train.shards.passed)] if job.train.shards.passed else []),
        ("steps", f"{job.steps:,} of {job.order.global_batch} pairs ({job.order.steps_per_epoch:,} an epoch)"),
        ("cells a pair", len(cells)),
        ("reference", job.reference),
        ("micro-batches a step and rank", f"about {micro}"),
        ("tokens a pair", f"mean {costs.mean():.0f}, longest {costs.max()}"),
        ("tokens a step", f"about {per_step:,.0f}, one stream"),
        ("responses cut", f"{summary['cut']:,} pairs ({int(lengths.cut.sum()):,} tokens)"),
        ("bad pairs", ", ".join(f"{count} {reason}" for reason, count in sorted(summary["bad"].items())) or "none"),
    ]
    rows += _held_back(job)
    text = "\n".join(f"{name + ':' if name else '':<32}{value}" for name, value in rows)
    named = "".join(f"\n  {line}" for line in bad_pairs(job))
    return f"{text}{named}\n\ntokens of a pair, packed:\n{histogram(costs)}"


def bad_pairs(job: Job) -> list[str]:
    """A line on each of the first bad training pairs: its reason and its name, and what lists the rest."""
    bad, lines = job.train.lengths.bad, []
    for index in bad[:NAMED_AT_MOST]:
        try:
            measured(job.train.shards, job.family, index, job.config.data.equal_pictures)
        except BadSample as error:
            lines.append(f"bad pair ({error.reason}): {error}")
    return [
        *lines,
        *(
            [f"and {len(bad) - NAMED_AT_MOST} more: {job.verify_command} lists them"]
            if len(bad) > NAMED_AT_MOST
            else []
        ),
    ]


def _held_back(job: Job) -> list[tuple[str, str]]:
    """What is not trained on, and what was read of folders."""
    data, rows = job.config.data, []
    if held := [f"{len(split.shards):,} {name} pairs" for name, split in job.splits.items() if name != "train"]:
        apart = {"none": "no key and no picture is shared", "keys": "keys may be shared, no picture is"}
        rows.append(
            ("held back", f"{', '.join(held)}; {apart.get(data.allow_overlap, 'what is shared was not looked for')}")
        )
        rows.append(("", ", ".join(map(redacted, (*data.validation, *data.heldout)))))
    said = dict.fromkeys(split.shards.folders for split in job.splits.values() if split.shards.folders)
    return rows + [("folders" if number == 0 else "", text) for number, text in enumerate(said)]


def histogram(values: np.ndarray, bins: int = 10, width: int = 40) -> str:
    """A histogram of whole numbers in text, one line a bin."""
    edges = np.unique(np.linspace(values.min(), values.max() + 1, bins + 1).astype(int))
    counts, edges = np.histogram(values, edges)
    return "\n".join(
        f"{low:>7} to {high - 1:<7}{count:>8} {'█' * round(width * count / counts.max())}"
        for low, high, count in zip(edges, edges[1:], counts)
    )


def dry_run_text(job: Job, world: World, ds: Mapping[str, Any] | None, dtype: torch.dtype) -> str:
    from ..recipe.read import dump

    shown = json_text(redacted_tree(dict(ds)), indent=2) if ds else "none: one process without DeepSpeed"
    lines = f"{dump(job.config)}\ndtype: {dtype}\n{describe(job, world)}\n{deviations(job.config, dtype)}"
    return f"{lines}\n\nDeepSpeed config:\n{shown}"

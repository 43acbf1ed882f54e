"""A ladder's results as markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ...basics.files import writing
from ...basics.markdown import markdown
from .count import PARTS, moved
from .ladder import LADDER
from .run import agree, baseline
from .shapes import SHAPES

KINDS = ("hidden states", "logits", "attention", "other")
"""What is held for the backward pass, in the order of the columns."""
_COUNTED = (
    "FLOPs are of the whole step, both models, vision and head included; attention over the pairs that see each other, as "
    "kernels compute it, in every row. The peak is of tensors made in the step, gradients included and weights not; the largest "
    "gather, of weights, is there beside it under ZeRO-3."
)


def page(result: dict[str, Any]) -> str:
    """Two tables: what is counted at the true shape, what is timed at the cut one."""
    plan = result["plan"]
    tuned = "full fine-tuning, frozen copy" if plan["full"] else "LoRA"
    title = f"### {plan['shape']}, {plan['objective']}, {tuned}"
    return "\n".join([title, "", *_counted(result), "", *_timed(result)])


def _counted(result: dict[str, Any]) -> list[str]:
    rows = [row for row in result["rows"] if row["counts"]]
    if not rows:
        return []
    base = baseline(rows)["counts"]
    lines = [
        f"Counted, a pair, at the true shape (all layers, bfloat16, a fused attention kernel; {_lengths(result)}):",
        "",
    ]
    held, *others = KINDS
    head = [
        "",
        "LLM tokens a stream",
        "images encoded",
        "TFLOP",
        "× baseline",
        f"held for backward, MB: {held}",
        *others,
    ]
    table = [[*head, "largest logits, MB", "largest ZeRO-3 gather, MB", "peak of a step, MB"]]
    for row in rows:
        counts = row["counts"]
        table.append(
            [
                row["row"],
                f"{counts['llm_tokens']:,.0f}",
                f"{counts['images']:.0f}",
                f"{counts['flops'] / 1e12:,.4g}",
                f"{counts['flops'] / base['flops']:.3f}",
                *(_mb(counts["held"].get(kind, 0)) for kind in KINDS),
                *(_mb(counts[name]) for name in ("largest_logits", "largest_gather", "peak")),
            ]
        )
    return [*lines, markdown(table), "", _COUNTED, "", *_above_the_floor(rows)]


def _above_the_floor(rows: Sequence[dict[str, Any]]) -> list[str]:
    table = [["", "floor, TFLOP", *PARTS, "all"]]
    for row in rows:
        counts = row["counts"]
        floor = counts["floor"]
        shares = (counts["parts"][part] / floor for part in PARTS)
        table.append(
            [
                row["row"],
                f"{floor / 1e12:,.4g}",
                *(f"{share:.3f}" for share in shares),
                f"{counts['flops'] / floor:.3f}",
            ]
        )
    return [
        "Where the FLOPs go, as multiples of what no implementation avoids: every distinct token once through the decoder's "
        "matrices, forward, backward and for a live reference; of the last layer, beside keys and values, only tokens that "
        "predict:",
        "",
        markdown(table),
    ]


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}" if size >= 1e8 else f"{size / 1e6:.3g}"


def _timed(result: dict[str, Any]) -> list[str]:
    rows, ranks, plan = result["rows"], result["ranks"], result["plan"]
    base = median(baseline(rows)["seconds"])
    cut = result["cut"] or "nothing cut"
    dtype = result["machine"]["dtype"].removeprefix("torch.")
    agreement = agree(rows, 1e-5 if dtype == "float32" else 2e-2)
    engine = "without DeepSpeed" if result["ds"] is None else f"ZeRO-{result['ds']['stage']}"
    lines = [
        f"Timed on {ranks} rank(s), {engine}, {dtype}, {plan['pairs']} pair(s) a step and rank, {plan['repetitions']} steps "
        f"a row in turn ({cut}); the rows' log-probs and gradients agree to {agreement:.0e}:",
        "",
    ]
    head = ["", "median step, s", "× baseline", "share of the matmul ceiling", "step ÷ floor", "gathers"]
    table = [[*head, "gathered ÷ model bytes", "reduced, MB"]]
    for row in rows:
        seconds = median(row["seconds"])
        flops = row["cut_counts"].get("flops", 0) * plan["pairs"]
        floor = row["floor_flops"] * plan["pairs"] / result["ceiling"]
        calls, gathered = moved(row["collectives"], "gather")
        _, reduced = moved(row["collectives"], "reduce")
        table.append(
            [
                row["row"],
                f"{seconds:.3g}",
                f"{seconds / base:.3f}",
                f"{flops / seconds / result['ceiling']:.0%}",
                f"{seconds / floor:.2f}",
                str(calls),
                f"{gathered / row['model_bytes']:.2f}",
                _mb(reduced),
            ]
        )
    ceiling = f"Matmul ceiling: {result['ceiling'] / 1e9:,.0f} GFLOP/s a rank, measured in the same run."
    return [*lines, markdown(table), "", ceiling]


def _lengths(result: dict[str, Any]) -> str:
    shape = SHAPES[result["plan"]["shape"]]
    return f"{shape.features} image, {shape.prompt} prompt and {shape.response} response tokens"


def ideas() -> str:
    """What each row adds."""
    return "\n".join(f"- **{row.name}**: {row.idea}" for row in LADDER)


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars a ladder: FLOPs at the true shape and seconds at the cut one, each as a share of the baseline's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(6.5 * len(results), 4.2), squeeze=False, layout="constrained")
    for axis, result in zip(axes[0], results):
        rows = result["rows"]
        base = baseline(rows)
        names = [row["row"] for row in rows]
        places = range(len(rows))
        flops = [row["counts"]["flops"] / base["counts"]["flops"] for row in rows]
        seconds = [median(row["seconds"]) / median(base["seconds"]) for row in rows]
        axis.barh([p + 0.2 for p in places], flops, 0.36, label="FLOPs, true shape", color="#9db4c0")
        axis.barh([p - 0.2 for p in places], seconds, 0.36, label="step time, cut shape", color="#253237")
        for place, value in zip(places, seconds):
            axis.text(value + 0.01, place - 0.2, f"{value:.2f}", va="center", fontsize=8)
        axis.set_yticks(list(places), names)
        axis.invert_yaxis()
        axis.set_xlabel(f"× {base['row']}")
        plan = result["plan"]
        axis.set_title(f"{plan['shape']}, {plan['objective']}, {'full' if plan['full'] else 'LoRA'}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    with writing(path):
        figure.savefig(path, dpi=110)
    plt.close(figure)

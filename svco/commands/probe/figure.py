"""Perplexity under each view as bars, a panel a model: overall and per contrast type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...basics.files import writing
from ...scores.style import COLOURS, WORDS, blank

_INK, _SOFT = "#1a1a1a", "#5a5a5a"


def draw(models: Mapping[str, Mapping[str, Any]], reading: str, path: Path) -> None:
    """Grouped bars with 95% intervals into PNG ``path``; ``models`` as of :func:`~svco.commands.probe.perplexity.by_contrast`.

    All panels share one logarithmic axis: a ratio of perplexities is a difference of nats a token.
    """
    first = next(iter(models.values()))
    groups = ["overall", *first["by_contrast"]]
    width = max(6.5, 1.3 * len(groups) * len(models) + 1.5)
    figure = blank(width, 4.6, 130, layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for panel, (name, model) in zip(panels, models.items()):
        _panel(panel, name, model, groups)
    panels[0].set_ylabel("perplexity of the right response, per token", color=_INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9.5)
    figure.suptitle(reading, fontsize=10, color=_INK, wrap=True, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        figure.savefig(path)


def _panel(axes: Any, name: str, model: Mapping[str, Any], groups: list[str]) -> None:
    parts = [model["overall"], *model["by_contrast"].values()]
    views = list(parts[0]["perplexity"])
    wide = 0.8 / len(views)
    for place, view in enumerate(views):
        values = [part["perplexity"][view] for part in parts]
        middles = [group + (place - (len(views) - 1) / 2) * wide for group in range(len(parts))]
        heights = [value["value"] for value in values]
        spans = [[_span(value, "low") for value in values], [_span(value, "high") for value in values]]
        label = f"{WORDS[view]} ({view})"
        # Bars of a perplexity stand on 1, the least there is.
        tops = [height - 1 for height in heights]
        axes.bar(middles, tops, width=0.92 * wide, bottom=1, color=COLOURS[view], label=label, zorder=2)
        axes.errorbar(middles, heights, yerr=spans, fmt="none", ecolor=_INK, elinewidth=0.8, capsize=2, zorder=3)
        for x, value in zip(middles, values):
            top = value["high"] or value["value"]
            axes.annotate(
                f"{value['value']:.2f}",
                (x, top),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=_INK,
            )
    axes.set_yscale("log")
    _ticks(axes)
    axes.set_xticks(range(len(groups)), [f"{g}\nn = {part['pairs']:,}" for g, part in zip(groups, parts)], fontsize=8.5)
    axes.set_title(name, fontsize=11, color=_INK, parse_math=False)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.7, zorder=0)
    axes.margins(y=0.08)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    axes.tick_params(colors=_SOFT)


def _ticks(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _span(value: Mapping[str, Any], end: str) -> float:
    """How far the interval reaches from its middle; 0 where one pair has none."""
    edge = value[end]
    return 0.0 if edge is None else abs(edge - value["value"])

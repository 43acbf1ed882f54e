"""The pictures of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.files import writing
from ...basics.views import VIEWS
from ...scores.statistics import standard_error
from ...scores.style import COLOURS, SERIES, WORDS, blank
from .cells import BASE
from .results import Row
from .spec import Group, Study
from .tables import Name, by_name, contrasted, row_name

_COLOURS = (*SERIES, "#8c8c8c", "#1a1a1a")
_MARKS = "osD^vPX*"
_INK, _SOFT = "#1a1a1a", "#6b6b6b"


def draw(study: Study, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Every figure that the finished rows allow, as PNG files in ``folder``."""
    drawn = []
    for group in study.groups:
        named = by_name(group, rows)
        if len(named) < 2:
            continue
        if group.kind == "methods":
            drawn += _accuracy(group, named, folder)
            drawn.append(_perplexity(group, named, folder))
            drawn += _kept(group, named, folder)
    artefacts = [g for g in study.groups if g.kind == "artefact" and not g.compute_of and by_name(g, rows)]
    return drawn + (_artefacts(study, artefacts, rows, folder) if artefacts else [])


def _figure(width: float, height: float, columns: int = 1, **how: Any) -> tuple[Any, Any]:
    figure = blank(width, height, 110, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **how)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        one.set_axisbelow(True)
        one.margins(y=0.02)
    return figure, axes


def _values(many: Sequence[Row], metric: str) -> tuple[float, float]:
    """(mean, standard error over seeds) of a metric."""
    values = np.array([row.measures[metric] for row in many if metric in row.measures])
    if not len(values):
        return float("nan"), 0.0
    return float(values.mean()), standard_error(values) if len(values) > 1 else 0.0


def _accuracy(group: Group, named: dict[Name, list[Row]], folder: Path) -> list[Path]:
    """Pair accuracy of every row on every test set with contrasts."""
    sample = next(iter(named.values()))[0].measures
    tests = [test for test in group.tests if contrasted(test, sample)]
    if not tests:
        return []
    figure, (axes,) = _figure(8.5, 1.2 + 0.32 * len(named))
    places = np.arange(len(named))[::-1]
    for n, test in enumerate(tests):
        means, errors = zip(*(_values(many, f"{test}.pair_accuracy") for many in named.values()))
        axes.errorbar(
            np.array(means) * 100,
            places - 0.12 * (n - (len(tests) - 1) / 2),
            xerr=np.array(errors) * 100,
            fmt=_MARKS[n],
            color=_COLOURS[n],
            label=f"test set: {test}",
            markersize=5,
            linewidth=1.2,
        )
    axes.set_yticks(places, [row_name(name) for name in named])
    axes.set_xlabel("pairs right under both images, % (bars: standard error over seeds)")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(tests), fontsize=9)
    axes.set_title(f"{group.title or group.name}: pair accuracy", loc="left", fontsize=11, color=_INK)
    return [_saved(figure, folder / f"{group.name}_pair_accuracy.png")]


def _perplexity(group: Group, named: dict[Name, list[Row]], folder: Path) -> Path:
    """The paper's motivating experiment after every method: a model that looks has its shortest bar under its own image."""
    test = group.tests[0]
    figure, (axes,) = _figure(8.5, 1.2 + 0.5 * len(named))
    places = np.arange(len(named))[::-1]
    for n, view in enumerate(VIEWS):
        means, errors = zip(*(_values(many, f"{test}.perplexity_{view}") for many in named.values()))
        axes.barh(
            places - 0.26 * (n - 1), np.array(means) - 1, 0.24, left=1, xerr=errors, color=COLOURS[view],
            label=f"{WORDS[view]} ({view})",
            error_kw={"linewidth": 1},
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = [tick for tick in (1, 1.2, 1.5, 2, 3, 5, 7, 10, 20, 50, 100) if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(places, [row_name(name) for name in named])
    axes.set_xlabel("perplexity of the right response per token, log scale")
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    axes.set_title(f"{group.title or group.name}: does the image help?", loc="left", fontsize=11, color=_INK)
    return _saved(figure, folder / f"{group.name}_perplexity.png")


def _kept(group: Group, named: dict[Name, list[Row]], folder: Path) -> list[Path]:
    """Pair accuracy against what is kept of general ability; nothing where no test set is without contrasts."""
    sample = next(iter(named.values()))[0].measures
    plain = [test for test in group.tests[1:] if not contrasted(test, sample)]
    if not plain:
        return []
    figure, axes = _figure(5.2 * len(plain), 5, len(plain))
    for one, test in zip(axes, plain):
        for n, (name, many) in enumerate(named.items()):
            (x, dx), (y, dy) = _values(many, f"{test}.nll_match"), _values(many, f"{group.tests[0]}.pair_accuracy")
            # Colours come round again with another mark.
            mark = _MARKS[(n + n // len(_COLOURS)) % len(_MARKS)]
            how = {"color": _COLOURS[n % len(_COLOURS)], "fmt": mark, "markersize": 6}
            one.errorbar(x, 100 * y, xerr=dx, yerr=100 * dy, linewidth=1, label=row_name(name), **how)
        one.set_xlabel(f"{test}: nats a token (lower: more is kept)")
        one.set_ylabel("pairs right, %")
    axes[-1].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(f"{group.title or group.name}: what is learned, and what it costs", fontsize=11, color=_INK)
    return [_saved(figure, folder / f"{group.name}_kept.png")]


def _artefacts(study: Study, groups: Sequence[Group], rows: Sequence[Row], folder: Path) -> list[Path]:
    """What an artefact on one side of the training pairs teaches, by its visibility."""
    panels = (
        ("penalty", "nats that the artefact costs\na response on its own image", 1),
        ("own_edited", "own image preferred although\nit is the edited one, %", 100),
        ("pair_accuracy", "pairs right with the artefact\non a random side, %", 100),
    )
    groups = sorted(groups, key=lambda group: study.tests[group.tests[1]].opacity)
    methods = list(dict.fromkeys(method for group in groups for method, _ in group.cells))
    figure, axes = _figure(13, 4.2, len(panels))
    for one, (metric, label, scale) in zip(axes, panels):
        for n, method in enumerate([BASE, *methods]):
            points = []
            for place, group in enumerate(groups):
                many = [row for row in rows if row.group == group.name and row.method == method]
                if many:
                    points.append((place, *_values(many, f"{group.tests[1]}.{metric}")))
            if points:
                x, y, error = map(np.array, zip(*points))
                how = {"color": _COLOURS[n % len(_COLOURS)], "marker": _MARKS[n % len(_MARKS)]}
                dash = "--" if method == BASE else "-"
                one.errorbar(x, y * scale, yerr=error * scale, label=method, linestyle=dash, markersize=5, **how)
        one.set_xticks(range(len(groups)), [f"{study.tests[g.tests[1]].opacity:.0%}" for g in groups])
        one.set_xlabel("visibility of the artefact, in training and in the test")
        one.set_title(label, fontsize=10, color=_SOFT)
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle("An artefact of editing on side 1 of every training pair", fontsize=11.5, color=_INK)
    return [_saved(figure, folder / "artefact.png")]


def _saved(figure: Any, path: Path) -> Path:
    with writing(path):
        figure.savefig(path)
    return path

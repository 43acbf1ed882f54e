"""The tables of a study: means and standard errors over seeds, paired differences over pairs, the paper's rows beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from ...basics.markdown import markdown
from ...data.schema import CONTRASTS
from ...scores.statistics import standard_error
from ..evaluation import benchmarks
from .cells import BASE
from .results import Row, edited, right
from .spec import Group, Study

Name = tuple[str, str]
"""(method, data)."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    label: str
    """Its head."""
    metric: str
    """Key of ``Row.measures``."""
    percent: bool = True
    """Shown in %, or as it is."""
    better: int = 1
    """1: higher is better, −1: lower; 0: neither, and it does not count in the average gain."""
    gain_of: str = ""
    """The metric whose relative change counts in the average gain; empty: the same. Of nats, which are no ratio scale, the
    perplexity."""

    def shown(self, values: Sequence[float]) -> str:
        """Mean ± standard error over seeds; of one seed the value alone."""
        scaled = np.asarray(values) * (100 if self.percent else 1)
        digits = 1 if self.percent else 2
        error = f" ± {standard_error(scaled):.{digits}f}" if len(scaled) > 1 else ""
        return f"{scaled.mean():.{digits}f}{error}"


def columns_of(group: Group, rows: Sequence[Row]) -> list[Column]:
    """What a group's table shows: of its first test set everything, of others pair accuracy or, without contrasts, nats."""
    there = {name for row in rows for name in row.measures}
    first, *others = group.tests
    wanted = [Column(kind, f"{first}.pair_accuracy.{kind}") for kind in CONTRASTS]
    wanted += [Column("all pairs", f"{first}.pair_accuracy", better=0)]
    wanted += [Column("unseen combinations", f"{first}.unseen", better=0)]
    for test in others:
        if contrasted(test, there):
            wanted.append(Column(f"{test}: all pairs", f"{test}.pair_accuracy"))
        else:
            nats = Column(f"{test}, nats a token", f"{test}.nll_match", False, -1, f"{test}.perplexity_match")
            wanted.append(nats)
        wanted += [
            Column("own image, edited", f"{test}.own_edited", better=0),
            Column("own image, other", f"{test}.own_other", better=0),
            Column("penalty, nats", f"{test}.penalty", False, 0),
        ]
    wanted += [Column(name, f"{name}.score") for name in benchmarks.NAMES]
    wanted += [
        Column("hallucination", f"{first}.hallucination", better=-1),
        Column("empty answers", f"{first}.empty", better=0),
        Column("own image, typical", f"{first}.own_typical", better=0),
        Column("own image, untypical", f"{first}.own_untypical", better=0),
        Column("match − blind, nats", f"{first}.match_minus_blind", False, 0),
        Column("blind − clash, nats", f"{first}.blind_minus_clash", False, 0),
        Column("blind likelier", f"{first}.blind_likelier", better=0),
    ]
    return [column for column in wanted if column.metric in there]


def contrasted(test: str, measures: Iterable[str]) -> bool:
    """Whether a test set has contrasts: pairs of another type than ``unknown``. Captions have none."""
    kinds = {name for name in measures if name.startswith(f"{test}.pair_accuracy.")}
    return bool(kinds - {f"{test}.pair_accuracy.unknown"})


def by_name(group: Group, rows: Iterable[Row]) -> dict[Name, list[Row]]:
    """(method, data) -> its rows, BASE first, then in the group's order; names without a finished row are left out."""
    found: dict[Name, list[Row]] = {name: [] for name in ((BASE, ""), *group.cells)}
    for row in rows:
        if row.group == group.name:
            found[row.method, row.data].append(row)
    return {name: many for name, many in found.items() if many}


def row_name(name: Name) -> str:
    return f"{name[0]} · {name[1]}" if name[1] else name[0]


def group_table(group: Group, rows: Sequence[Row]) -> str:
    """Markdown: a row a method and data set, mean ± standard error over seeds, the best mean of a column in bold."""
    named = by_name(group, rows)
    columns = columns_of(group, [row for many in named.values() for row in many])
    cells = {
        name: [[row.measures[c.metric] for row in many if c.metric in row.measures] for c in columns]
        for name, many in named.items()
    }
    best = [_best(column, [values[n] for values in cells.values()]) for n, column in enumerate(columns)]
    gains = average_gains(named, columns)
    lines = [["", "seeds", *(c.label + (" %" if c.percent else "") for c in columns), *(["gain %"] if gains else [])]]
    for name, values in cells.items():
        shown = [c.shown(v) if v else "–" for c, v in zip(columns, values)]
        shown = [
            f"**{text}**" if v and mark is not None and np.mean(v) == mark else text
            for text, v, mark in zip(shown, values, best)
        ]
        lines.append([row_name(name), str(len(named[name])), *shown, *([gains[name]] if gains else [])])
    return markdown(lines)


def _best(column: Column, values: Sequence[Sequence[float]]) -> float | None:
    means = [float(np.mean(v)) for v in values if len(v)]
    if not (column.better and means):
        return None
    return max(means) if column.better > 0 else min(means)


def average_gains(named: dict[Name, list[Row]], columns: Sequence[Column]) -> dict[Name, str]:
    """The paper's TOTAL: the mean over the columns of the relative change against BASE in %, with the sign of those flipped
    where lower is better. A column counts where every row has it and BASE's figure is not 0. Empty without BASE."""
    if (BASE, "") not in named:
        return {}
    base = named[BASE, ""][0].measures
    everyone = [row for many in named.values() for row in many]
    counted = {
        metric: column.better
        for column in columns
        if column.better and base.get(metric := column.gain_of or column.metric)
        if all(metric in row.measures for row in everyone)
    }
    if not counted:
        return {}
    gains = {}
    for name, many in named.items():
        per_seed = [
            float(np.mean([100 * better * (row.measures[m] / base[m] - 1) for m, better in counted.items()]))
            for row in many
        ]
        gains[name] = Column("", "", percent=False).shown(per_seed) if name[0] != BASE else "0"
    return gains


def paired_table(study: Study, group: Group, rows: Sequence[Row]) -> str:
    """How ``study.against``'s row of a group differs from each other row, on what is counted pair by pair; Markdown.

    A difference is taken pair by pair, after averaging over the seeds both rows have; its standard error is over pairs.
    The second one, in brackets, is over seeds.
    """
    named = by_name(group, rows)
    ours = study.against if study.against in named else next((n for n in named if n[0] == study.against[0]), None)
    if ours is None:
        return ""
    tests = [test for test in group.tests if contrasted(test, named[ours][0].measures)]
    # A row stands in many comparisons: what it says of each pair is read once.
    read = cache(right)

    def right_in(test: str) -> Callable[[Row], dict[str, float]]:
        return lambda row: read(row.evaluation, test)

    counted = {f"{test}: pairs right, points": (right_in(test), 100) for test in tests}
    if group.kind == "artefact":
        shifts = cache(partial(edited, study, group))
        counted["own image though edited, points"] = (lambda row: shifts(Path(row.evaluation))["own_edited"], 100)
        counted["penalty, nats"] = (lambda row: shifts(Path(row.evaluation))["penalty"], 1)
    lines = [[f"{row_name(ours)} minus", *counted]]
    for name, theirs in named.items():
        if name != ours:
            lines.append([row_name(name), *(paired(named[ours], theirs, *how) for how in counted.values())])
    return markdown(lines)


def paired(
    ours: Sequence[Row], theirs: Sequence[Row], values: Callable[[Row], dict[str, float]], scale: int = 1
) -> str:
    """``difference ± s.e. over pairs (s.e. over seeds)`` of what ``values`` says of each pair by its key, times ``scale``; the
    latter of two seeds or more. Pairs that some row lacks are left out. A row without a seed in common is a dash."""
    # BASE has no seed: it stands against each.
    of_seed = {row.seed: theirs[0] for row in ours} if theirs[0].method == BASE else {row.seed: row for row in theirs}
    both = [(values(row), values(of_seed[row.seed])) for row in ours if row.seed in of_seed]
    if not both:
        return "–"
    keys = sorted(set.intersection(*(a.keys() & b.keys() for a, b in both)))
    differences = scale * np.array([[a[key] - b[key] for key in keys] for a, b in both])
    pairs, seeds = differences.mean(0), differences.mean(1)
    over_seeds = f" ({standard_error(seeds):.2f})" if len(seeds) > 1 else ""
    return f"{pairs.mean():+.2f} ± {standard_error(pairs):.2f}{over_seeds}"

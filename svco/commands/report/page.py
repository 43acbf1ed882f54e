"""The page: everything that is told of the runs, put into ``page.html.j2``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ...basics.html import render
from ...basics.views import VIEWS
from ..probe.page import Card, quantities_of, sides
from ..probe.scale import legend
from . import facts
from .charts import panels
from .examples import RULE, contact_sheet, examples
from .runs import Run
from .series import charts
from .tables import NOTE, Table, against_first, before_after, evaluations


def page(
    runs: Sequence[Run],
    title: str,
    *,
    evaluated: Sequence[Path] = (),
    shown: int = 6,
    cards: Sequence[Card] = (),
    problems: Sequence[str] = (),
    again: int | None = None,
) -> str:
    """The whole page of ``runs``, all text escaped. ``evaluated``: folders of evaluations; ``shown``: pairs to look at;
    ``cards``: pairs token by token; ``problems``: what stood in the way of these; ``again``: seconds after which it loads
    itself anew."""
    logs = {run.name: run.lines for run in runs}
    drawn = [(chart, found) for chart in charts(list(logs.values())) if (found := panels(chart, logs))]
    tables, unread = evaluations(runs, evaluated)
    pairs, why_none = examples(runs, shown)
    sheet = ("", "") if pairs or not shown else contact_sheet(runs)
    texts = [(run.name, text) for run in runs if run.scores is None and (text := facts.heldout_text(run))]
    quantities = quantities_of(len(VIEWS))
    recipe = facts.recipe(runs)
    told = [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    return render(
        Path(__file__).with_name("page.html.j2"),
        title=title,
        again=again,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        names=[run.name for run in runs],
        summary=facts.summary(runs),
        problems=[*told, *unread, *problems],
        charts=drawn,
        times=facts.time_spent(runs),
        skipped=facts.skipped(runs),
        heldout=_heldout(runs),
        heldout_texts=texts,
        evaluations=tables,
        note=NOTE,
        pairs=pairs,
        why_none=why_none,
        rule=RULE,
        sheet=sheet,
        cards=[(card, sides(card, quantities)) for card in cards],
        quantities=quantities,
        legend=legend(),
        recipe=recipe,
        differing=[row for row in recipe if row.differs],
    )


def _heldout(runs: Sequence[Run]) -> list[Table]:
    return [table for run in runs for table in before_after(run)] + against_first(runs)

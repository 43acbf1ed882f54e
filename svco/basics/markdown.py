"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table; the first of ``lines`` is its head, the first ``texts`` columns are text and the others numbers."""
    head, *body = lines
    rule = "|".join(["---"] * texts + ["---:"] * (len(head) - texts))
    rows = [f"| {' | '.join(line)} |" for line in (head, *body)]
    return "\n".join([rows[0], f"|{rule}|", *rows[1:]])

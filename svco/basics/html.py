"""HTML pages from jinja2 templates, and the only door to jinja2: a page's template stands beside the code that fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).parent
"""Where the layout of all pages is, ``base.html.j2``, with its ``base.css``."""
_HOUSE = _SHARED.parent
"""A template names another folder's file by its path in ``svco/``, e.g. ``commands/probe/parts.html.j2``."""


def render(template: Path, **values: Any) -> str:
    """The page that ``template`` makes of ``values``, whose text is escaped; one file that needs nothing outside it.

    A template extends ``base.html.j2``, which asks for ``title``, and may include files that stand beside it, such as its
    style and its script. It only places what it is given: loops and ifs, no figures. What it names and ``values`` lacks is
    jinja2's ``UndefinedError``, not an empty place on the page.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _SHARED, _HOUSE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)

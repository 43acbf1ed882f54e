"""How pictures look: the views' colours and words, and a figure that needs no display."""

from __future__ import annotations

from typing import Any

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours: told apart by colour-blind readers too."""
COLOURS = {"match": SERIES[0], "blind": "#8c8c8c", "clash": SERIES[1], "corrupt": SERIES[3]}
"""The views' colours, in every picture."""
WORDS = {"match": "its own image", "blind": "no image", "clash": "the other image", "corrupt": "its own, corrupted"}
"""The views in words."""


def blank(width: float, height: float, dpi: int, **how: Any) -> Any:
    """A white figure of ``width`` × ``height`` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", **how)
    FigureCanvasAgg(figure)
    return figure

"""svco: S-VCO fine-tuning of vision-language models on DeepSpeed ZeRO-3.

``launchers/example.py`` shows these names at work. They are loaded when they are first asked for: ``import svco`` alone costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .basics.views import Scores
    from .data.pairs import Pair
    from .model.score import score
    from .objectives.table import Objective, make_objective, register
    from .objectives.terms import Term
    from .recipe.config import Config
    from .recipe.read import load_recipe
    from .run.start import train

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Objective",
    "Pair",
    "Scores",
    "Term",
    "load_recipe",
    "make_objective",
    "register",
    "score",
    "train",
]

_HOMES = {
    "Config": "recipe.config",
    "Objective": "objectives.table",
    "Pair": "data.pairs",
    "Scores": "basics.views",
    "Term": "objectives.terms",
    "load_recipe": "recipe.read",
    "make_objective": "objectives.table",
    "register": "objectives.table",
    "score": "model.score",
    "train": "run.start",
}
"""Public name -> the module that defines it. Type checkers read the imports above."""


if not TYPE_CHECKING:  # for a type checker every name would be there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            # Python adds the nearest of ``dir(svco)`` to a traceback by itself.
            raise AttributeError(f"module 'svco' has no attribute {name!r}; it shows {', '.join(__all__)}")
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value  # asked once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

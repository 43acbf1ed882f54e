"""What a recipe's values may be: choices, bounds, and what goes together."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal

from ..basics.errors import UserError
from ..basics.intervals import within, words
from .config import Config

BOUNDS = {
    "run.seed": "[0, 2147483647]",
    "run.log_every": "[1, 2147483647]",
    "run.timeout_minutes": "[1, 525600]",
    "lora.rank": "[1, 65536]",
    "lora.alpha": "(0, inf)",
    "lora.dropout": "[0, 1)",
    "data.max_text_tokens": "[2, 2147483647]",
    "data.max_bad_fraction": "[0, 1]",
    "data.workers": "[0, 1024]",
    "data.block_shards": "[1, 2147483647]",
    "corrupt.scale": "(0, 1]",
    "corrupt.step": "[0, 999]",
    "corrupt.seed": "[0, 2147483647]",
    "objective.beta": "(0, inf)",
    "objective.beta_text": "(0, inf)",
    "objective.beta_image": "(0, inf)",
    "objective.beta_anchor": "(0, inf)",
    "objective.beta_attend": "(0, inf)",
    "objective.beta_reject": "(0, inf)",
    "objective.weight_text": "[0, inf)",
    "objective.weight_image": "[0, inf)",
    "objective.weight_anchor": "[0, inf)",
    "objective.weight_attend": "[0, inf)",
    "objective.weight_reject": "[0, inf)",
    "objective.weight_margin": "[0, inf)",
    "objective.delta": "(-inf, inf)",
    "objective.nll": "[0, inf)",
    "objective.label_smoothing": "[0, 0.5)",
    "optim.lr": "[0, 1000]",
    "optim.lr_min_ratio": "[0, 1]",
    "optim.warmup_fraction": "[0, 1]",
    "optim.betas": "[0, 1)",
    "optim.eps": "(0, inf)",
    "optim.weight_decay": "[0, inf)",
    "optim.max_grad_norm": "[0, inf)",
    "optim.global_batch": "[1, 2147483647]",
    "optim.max_skipped_steps": "[0, 2147483647]",
    "optim.max_skipped_fraction": "[0, 1]",
    "optim.epochs": "[0, 1000000]",
    "optim.steps": "[0, 2147483647]",
    "optim.tokens_per_micro_batch": "[1, 2147483647]",
    "optim.activation_gb": "[0, 1000000]",
    "checkpoint.every": "[0, 2147483647]",
    "checkpoint.keep": "[0, 2147483647]",
    "evaluate.every": "[0, 2147483647]",
    "evaluate.max_pairs": "[0, 2147483647]",
    "evaluate.pictures": "[0, 1000]",
}
"""Every number of a recipe -> the interval it lies in; NaN lies in none."""


def get(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def kinds() -> Iterator[tuple[str, Any]]:
    """(``section.key``, its type) of every key of a recipe."""
    for section, kind in typing.get_type_hints(Config).items():
        hints = typing.get_type_hints(kind)
        yield from ((f"{section}.{f.name}", hints[f.name]) for f in fields(kind))


def check(config: Config) -> None:
    """Refuses values that no run can mean."""
    for key, kind in kinds():
        value, several = get(config, key), typing.get_origin(kind) is tuple
        one = typing.get_args(kind)[0] if several else kind
        if typing.get_origin(one) is Literal:
            choices = typing.get_args(one)
            for part in value if several else (value,):
                if part not in choices:
                    raise UserError(f"{key} is {part!r}; it must be one of {', '.join(choices)}.")
    for key, interval in BOUNDS.items():
        value = get(config, key)
        values = value if isinstance(value, tuple) else (value,)
        if not all(within(number, interval) for number in values):
            raise UserError(f"{key} is {', '.join(map(str, values))}; it must be {words(interval)}.{_hint(key)}")
    duration(config.run.time_limit)
    _check_name(config.run.name)
    if config.checkpoint.keep_best and not config.data.validation:
        raise UserError(
            f"checkpoint.keep_best is {config.checkpoint.keep_best} and there are no validation pairs to judge by: set "
            "data.validation (and evaluate.every), or leave it empty."
        )
    if config.model.quantise != "none":
        _check_quantised(config)
    low, high = config.corrupt.scale
    if low > high:
        raise UserError(f"corrupt.scale is [{low}, {high}]; the least share of the image's area comes first.")
    for key in BOUNDS:
        if key.startswith("objective.beta_") and len(betas := get(config, key)) > 2:
            raise UserError(f"{key} is {list(betas)}; it takes one number, or two: one a side.")


def _check_quantised(config: Config) -> None:
    quantise = f"model.quantise is {config.model.quantise}"
    if config.model.tune == "full":
        raise UserError(
            f"{quantise} and model.tune is full: weights of 4 bits cannot be trained, only adapters beside them. Set "
            "model.tune=lora, or model.quantise=none."
        )
    if config.model.compile:
        raise UserError(
            f"{quantise} and model.compile is true: compiled layers of 4 bits were never tried. Set one of the two back."
        )


def _check_name(name: str) -> None:
    if "/" in name or name in (".", "..") or not name.isprintable():
        raise UserError(
            f"run.name is {name!r}; it names a folder inside run.root, without a '/'. For another place set run.root."
        )


def _hint(key: str) -> str:
    if key.startswith("objective.beta_"):
        return f" To drop a term set its weight ({key.replace('beta', 'weight')}) to 0."
    return ""


_LONGEST = 366 * 86400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds in ``text``: ``[[D-]H:]MM:SS``, numbers with a unit (``1h30m``), or plain seconds; 0 for an empty one."""
    if not text:
        return 0.0
    if found := re.fullmatch(r"(?:(?:(\d{1,9})-)?(\d{1,9}):)?(\d{1,9}):([0-5]\d)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        total = float(86400 * days + 3600 * hours + 60 * minutes + seconds)
    elif re.fullmatch(r"(?:\d{1,9}(?:\.\d+)?[smhd])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    elif re.fullmatch(r"\d{1,9}(?:\.\d+)?", text):
        total = float(text)
    else:
        total = 0.0
    if not 0 < total <= _LONGEST:
        raise UserError(
            f"run.time_limit is {text!r}; write it as 3:55:00, 1-12:00:00, 45m, 2h or seconds, above 0 and at most a year."
        )
    return total

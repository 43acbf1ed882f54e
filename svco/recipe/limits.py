"""What a recipe's values may be: choices, bounds, and what goes together."""

from __future__ import annotations

import re
from typing import Any

from ..basics.errors import UserError
from .config import Config

_CHOICES = {
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "model.attention": ("auto", "flash", "varlen", "sdpa"),
    "model.reference": ("auto", "lockstep", "frozen-copy", "cached", "none"),
    "model.tune": ("lora", "full"),
    "objective.sides": ("auto", "first", "both"),
    "corrupt.kind": ("crop", "noise", "grey", "zero"),
    "objective.image_negative": ("corrupt", "clash"),
    "objective.link": ("sigmoid", "ipo"),
}
_AT_LEAST = {
    "run.log_every": 1,
    "run.timeout_minutes": 1,
    "lora.rank": 1,
    "data.max_text_tokens": 2,
    "data.workers": 0,
    "data.block_shards": 1,
    "data.max_bad_fraction": 0,
    "corrupt.step": 0,
    "optim.global_batch": 1,
    "optim.steps": 0,
    "optim.epochs": 0,
    "optim.lr": 0,
    "optim.tokens_per_micro_batch": 1,
    "optim.max_grad_norm": 0,
    "optim.warmup_fraction": 0,
    "optim.weight_decay": 0,
    "checkpoint.every": 0,
    "checkpoint.keep": 0,
    "evaluate.every": 0,
    "evaluate.max_pairs": 0,
    "evaluate.pictures": 0,
    "lora.dropout": 0,
    "optim.activation_gb": 0,
}
_AT_MOST = {
    "data.max_bad_fraction": 1,
    "optim.warmup_fraction": 1,
    "optim.lr_min_ratio": 1,
    "lora.dropout": 1,
    "corrupt.step": 999,
}


def get(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def check(config: Config) -> None:
    """Refuses values that no run can mean."""
    for key, choices in _CHOICES.items():
        if (value := get(config, key)) not in choices:
            raise UserError(f"{key} is {value!r}; it must be one of {', '.join(choices)}.")
    for bounds, wrong, words in ((_AT_LEAST, float.__lt__, "at least"), (_AT_MOST, float.__gt__, "at most")):
        for key, bound in bounds.items():
            if wrong(float(get(config, key)), float(bound)):
                raise UserError(f"{key} is {get(config, key)}; it must be {words} {bound}.")
    duration(config.run.time_limit)
    low, high = config.corrupt.scale
    if not 0 < low <= high <= 1:
        raise UserError(
            f"corrupt.scale is [{low}, {high}]; it must be two shares of the image's area, above 0 and at most 1, the least "
            "first."
        )
    _check_objective(config)


_TERMS = ("text", "image", "anchor", "attend", "reject")


def _check_objective(config: Config) -> None:
    """Numbers no objective can have; what has no effect on the named one is refused where it is made."""
    for key in ("objective.beta", *(f"objective.beta_{term}" for term in _TERMS)):
        betas = value if isinstance(value := get(config, key), tuple) else (value,)
        if len(betas) > 2:
            raise UserError(f"{key} is {list(betas)}; it takes one number, or two: one a side.")
        if not all(0 < beta < float("inf") for beta in betas):
            drop = (
                ""
                if key == "objective.beta"
                else f" To drop a term set its weight ({key.replace('beta', 'weight')}) to 0."
            )
            raise UserError(f"{key} is {', '.join(map(str, betas))}; every β must be above 0.{drop}")
    for key in ("objective.weight_margin", "objective.nll", *(f"objective.weight_{term}" for term in _TERMS)):
        weights = value if isinstance(value := get(config, key), tuple) else (value,)
        if not all(0 <= weight < float("inf") for weight in weights):
            raise UserError(f"{key} is {', '.join(map(str, weights))}; a weight must be at least 0.")
    if not 0 <= config.objective.label_smoothing < 0.5:
        raise UserError(
            f"objective.label_smoothing is {config.objective.label_smoothing}; it must be at least 0 and below 0.5, where "
            "right and wrong count alike."
        )
    if not abs(config.objective.delta) < float("inf"):
        raise UserError(f"objective.delta is {config.objective.delta}; it must be a finite number.")


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds in ``text``: ``[[D-]H:]MM:SS``, numbers with a unit (``1h30m``), or plain seconds; 0 for an empty one.

    YAML 1.1 reads an unquoted 3:55:00 in base 60, as 14100: the same in seconds.
    """
    if not text:
        return 0.0
    if found := re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):([0-5]\d)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        total = float(86400 * days + 3600 * hours + 60 * minutes + seconds)
    elif re.fullmatch(r"(?:\d+(?:\.\d+)?[smhd])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    elif re.fullmatch(r"\d+(?:\.\d+)?", text):
        total = float(text)
    else:
        total = 0.0
    if total <= 0:
        raise UserError(f"run.time_limit is {text!r}; write it as 3:55:00, 1-12:00:00, 45m, 2h or seconds, above 0.")
    return total

"""What the authors ran (arXiv 2502.13928, their released configuration), and how a recipe differs from it."""

from __future__ import annotations

from typing import Any

from .config import Config
from .limits import get

BASES = ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-interleave-qwen-7b-hf")
"""The models of the paper."""
AUTHORS = {
    "model.tune": "full",
    "model.quantise": "none",
    "data.max_text_tokens": 128,
    "objective.name": "svco",
    "objective.sides": "auto",
    "objective.beta_attend": (0.1, 0.1),
    "objective.beta_reject": (0.1, 0.1),
    "objective.weight_attend": (1.0, 1.0),
    "objective.weight_reject": (1.0, 1.0),
    "objective.nll": 0.0,
    "objective.length_normalised": False,
    "objective.label_smoothing": 0.0,
    "objective.link": "sigmoid",
    "optim.lr": 1e-6,
    "optim.lr_min_ratio": 0.0,
    "optim.warmup_fraction": 0.05,
    "optim.betas": (0.9, 0.95),
    "optim.weight_decay": 0.02,
    "optim.global_batch": 32,
    "optim.epochs": 1.0,
    "optim.steps": 0,
}
"""Key of a recipe -> the authors' value. float16 and their way of cutting text are ``model.paper_compat``."""


def deviations(config: Config, dtype: Any) -> str:
    """A line that says where a run of one of the paper's models differs from the paper's; empty for other models."""
    if config.model.base not in BASES:
        return ""
    found = []
    for key, theirs in AUTHORS.items():
        ours = get(config, key)
        if key.startswith("objective.beta_"):
            ours = config.objective.betas_of(key.removeprefix("objective.beta_"))  # objective.beta, where it has none
        if ours != theirs:
            found.append(f"{key} {ours} (theirs {theirs})")
    if (ours := str(dtype).removeprefix("torch.")) != "float16":
        found.append(f"{ours} (theirs float16)")
    if not config.model.paper_compat:
        found.append("text is cut alike in every view (theirs: the image placeholder counts, each view on its own)")
    return f"differs from the paper's runs in: {'; '.join(found) or 'nothing that a recipe says'}"

"""The model under examination: a base or a whole tuned model, with any PEFT LoRA adapter on it, ready to score and to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError
from ..basics.shipped import located
from ..data.shards import DEFAULT_CACHE
from ..families import Family, HfModel, load_family
from ..recipe.config import Dtype, ModelConfig, Quantise
from .attention import choose_backend, register
from .load import load_base, resolve_dtype, show_loading
from .lora import adapter_modules, adapter_switch, attach_adapter
from .provenance import check_subject
from .quantised import HowHeld, resolve_quantise
from .scorer import PackedScorer, Reference

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Subject:
    """A model that is looked at and not changed: no gradients, no dropout."""

    name: str
    """What tables call it: the adapter's folder or the base's, of a run the run's name."""
    base: str
    """Folder or hub id of the base, or of the whole model."""
    adapter: str | None
    """Folder of the PEFT adapter on it, or None."""
    family: Family
    """Template, pixels and parts."""
    scorer: PackedScorer
    """``scorer(batch) -> (Scores, zeros)``: the policy's stream alone. There is no reference."""
    policy: HfModel
    """The Hugging Face model, adapters inside and on."""
    dtype: torch.dtype
    """Of the weights."""
    device: torch.device
    """Where they are."""
    quantise: Quantise = "none"
    """How the base's matrices are held."""

    @property
    def precision(self) -> str:
        """The dtype, and what the base is held in, in words."""
        name = str(self.dtype).removeprefix("torch.")
        return name if self.quantise == "none" else f"{name}, base in {self.quantise}"

    def facts(self) -> dict[str, Any]:
        """What eval.json says of the model."""
        return {
            "name": self.name,
            "base": self.base,
            "adapter": self.adapter,
            "dtype": str(self.dtype).removeprefix("torch."),
            **({} if self.quantise == "none" else {"quantise": self.quantise}),
            "device": self.device.type,
            "max_text_tokens": self.family.max_text_tokens,
            "paper_compat": self.family.paper_compat,
        }

    @contextmanager
    def answering(self) -> Iterator[HfModel]:
        """The Hugging Face model for greedy ``generate``: with an attention of transformers' own, as the packed kernels read
        layouts, and without the sampling that a release's generation config asks for."""
        from transformers import GenerationConfig

        config, released = self.policy.config, self.policy.generation_config
        packed = {name: getattr(config, name)._attn_implementation for name in config.sub_configs}
        self.policy.set_attn_implementation(dict.fromkeys(packed, "sdpa"))
        ends = self.family.ends
        self.policy.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
        try:
            yield self.policy
        finally:
            self.policy.generation_config = released
            self.policy.set_attn_implementation(packed)


def load_subject(
    base: str,
    adapter: str | None = None,
    *,
    dtype: Dtype = "auto",
    attention: str = "auto",
    max_text_tokens: int = 128,
    paper_compat: bool = False,
    quantise: HowHeld = "auto",
    device: torch.device,
    progress: bool = True,
    other_base: bool = False,
    check: bool = True,
) -> Subject:
    """Loads ``base`` (folder or hub id) with ``adapter`` (PEFT folder) onto ``device``.

    ``dtype``, ``attention``, ``paper_compat``, ``quantise`` mean what they mean in a recipe's ``model`` section,
    ``max_text_tokens`` as in ``data``; ``quantise`` ``auto``: the base is held as the adapter's identity says that it was
    trained on, in full where it says nothing. ``progress`` False (ranks above 0) keeps transformers' bars off the terminal.
    UserError for a base that is none, an adapter that does not fit it in every tensor, and one on the language-model head, which
    is read without its adapter; unless ``other_base``, for one that svco trained on other weights; and for files that are not
    what svco wrote. ``check`` False: what their identities say was looked at before
    (:func:`svco.model.provenance.check_subject`).
    """
    show_loading(progress)
    base = located(base)
    if check:
        check_subject(base, adapter, DEFAULT_CACHE.expanduser(), other_base)
    family = load_family(base, max_text_tokens, paper_compat)
    weights_dtype = resolve_dtype(ModelConfig(dtype=dtype, paper_compat=paper_compat), device)
    backend, _ = choose_backend(attention, device, weights_dtype)
    register(backend)
    held = resolve_quantise(quantise, adapter)
    policy = load_base(base, family, weights_dtype, backend, held, device).requires_grad_(False)
    if adapter is not None:
        attach_adapter(policy, adapter)
        if family.parts(policy).head in adapter_modules(policy):
            raise UserError(
                f"The adapter {adapter} changes the language-model head, whose weight svco reads as it is. Merge it first: "
                f"svco export {adapter} --format merged, and give the result as base."
            )
    scorer = PackedScorer(family, policy, Reference(), adapter_switch).to(device).eval()
    policy.to(device).eval()
    return Subject(_name(adapter or base), base, adapter, family, scorer, policy, weights_dtype, device, held)


def _name(folder: str) -> str:
    """The last part of a path that says something: runs/<name>/adapter is <name>."""
    path = Path(folder)
    if path.name in ("adapter", "model") and path.parent.name:
        path = path.parent
    return path.name or folder

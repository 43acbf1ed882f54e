"""S-VCO from scratch with plain transformers and peft: six separate forwards a model, full logits, log_softmax.

Uses nothing of svco. Everything the product computes is held against this.
"""

from __future__ import annotations

import importlib.util
import io
import math
import sys
import types
from functools import lru_cache
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

TARGETS = r".*(language|text)_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|in_proj_\w+|out_proj)"
QWEN35 = "transformers.models.qwen3_5.modeling_qwen3_5"


def load(base, dtype=torch.float64):
    return AutoProcessor.from_pretrained(base), load_model(base, dtype)


def load_model(base, dtype=torch.float64):
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype)
    return exact_norms(model) if dtype == torch.float64 else model


class ExactNorm(torch.nn.Module):
    """RMS norm in the dtype of its input. transformers' own computes in float32 whatever the model's dtype is, and rounds
    differently when gradients arrive in another order: with it nothing can be compared beyond 1e-7."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, getattr(norm, "variance_epsilon", None) or norm.eps
        self.centre = (
            1.0 if type(norm).__name__.startswith("Gemma") else 0.0
        )  # of the weights: Gemma's are kept around 0

    def forward(self, hidden):
        return (self.centre + self.weight) * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.eps)


def exact_norms(model):
    """Puts an ExactNorm in the place of every RMS norm of ``model``, and every module of Qwen3.5's in float64."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__module__ == QWEN35:
                child.__class__ = getattr(exact_qwen35(), type(child).__name__)
            elif type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return model


@lru_cache(maxsize=1)
def exact_qwen35():
    """transformers' modelling code of Qwen3.5 with float64 wherever it says float32: norms, decay, rotary and the delta rule. Its
    models run the rule token by token (the recurrent form); ``chunk_rule`` is the form in chunks."""
    spec = importlib.util.find_spec(QWEN35)
    source = Path(spec.origin).read_text()
    for narrow, wide in (
        ("torch.float32", "torch.float64"),
        (".float()", ".double()"),
        ("=torch.float)", "=torch.float64)"),
    ):
        source = source.replace(narrow, wide)
    module = types.ModuleType(f"{QWEN35}_exact")
    module.__package__, module.__file__ = spec.parent, spec.origin
    sys.modules[module.__name__] = module
    exec(compile(source, f"{spec.origin} in float64", "exec"), module.__dict__)
    module.chunk_rule = module.torch_chunk_gated_delta_rule
    module.torch_chunk_gated_delta_rule = module.torch_recurrent_gated_delta_rule
    return module


def make_adapter(base, folder, rank=4, alpha=8, seed=3, whole=None):
    """Saves an adapter with A and B both random: at B = 0 the gradient of A is exactly 0."""
    model = load_model(base, torch.float32)
    torch.manual_seed(seed)  # A's first values are drawn from the global generator
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, modules_to_save=whole))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    wrapped.save_pretrained(folder)


@lru_cache(maxsize=64)
def sequence(processor, query, response, image):
    """(ids (1, T) with the end token, pixels or None, where the response begins). The last ones are kept: policy and reference,
    and every step of a training, read the same."""
    content = ([{"type": "image"}] if image is not None else []) + [{"type": "text", "text": query}]
    user = {"role": "user", "content": content}
    answer = {"role": "assistant", "content": [{"type": "text", "text": response}]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, answer])
    picture = None if image is None else Image.open(io.BytesIO(image)).convert("RGB")
    inputs = processor(text=whole, images=picture, return_tensors="pt")
    start = len(processor(text=prompt, images=picture)["input_ids"][0])
    eos = torch.tensor([[processor.tokenizer.eos_token_id]])
    return torch.cat([inputs["input_ids"], eos], dim=1), inputs.get("pixel_values"), start


def sequence_logp(model, processor, query, response, image):
    """(log-probability of the response's tokens and the end token, number of them) under an image, or None."""
    ids, pixels, start = sequence(processor, query, response, image)
    extra = {} if image is None else {"pixel_values": pixels.to(model.dtype)}
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0].double()
    logps = logits.log_softmax(-1)[start - 1 : -1]
    return logps.gather(1, ids[0, start:, None]).sum(), ids.shape[1] - start


def answer(model, processor, query, image, at_most):
    """What the model says to ``query`` about the encoded ``image``, greedily, in at most so many tokens."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": query}]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    made = model.generate(**inputs, max_new_tokens=at_most, do_sample=False)
    return processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def pair_logps(model, processor, pair):
    """(2, 3) log-probabilities, float64: side, (match, blind, clash)."""
    rows = []
    for side in (0, 1):
        images = (pair.images[side], None, pair.images[1 - side])
        rows.append(
            torch.stack(
                [
                    sequence_logp(model, processor, pair.text.query, pair.text.responses[side], image)[0]
                    for image in images
                ]
            )
        )
    return torch.stack(rows)


def svco(policy, reference, attend=0.1, reject=0.1):
    """The paper's loss of one pair from two (2, 3) tensors, with its β for match over blind and for blind over clash."""
    delta = policy - reference
    total = 0.0
    for side in (0, 1):
        match, blind, clash = delta[side]
        total = (
            total
            + torch.log1p(torch.exp(-attend * (match - blind)))
            + torch.log1p(torch.exp(-reject * (blind - clash)))
        )
    return total


FOUR_LN_TWO = 4 * math.log(2)

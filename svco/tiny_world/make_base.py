"""Makes the embedded base model, measures where it starts from, and writes its card."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..basics.markdown import markdown
from ..basics.progress import shown
from ..batches.encode import Encode
from ..batches.pack import PackedCollate
from ..families import load_family
from ..model.attention import register
from ..model.lora import adapter_switch
from ..model.scorer import PackedScorer, Reference
from ..scores.before_after import metrics
from ..scores.pair_scores import pair_right
from .base_model import make_model, make_processor
from .contrast import CONTRAST_OF, SPLITS, world_pairs
from .pretrain import Schedule, encode_pool, learn_answers, learn_sight, make_pool

CARD = """# tiny_llava: the embedded base model

A `LlavaForConditionalGeneration` of {parameters:,} parameters for the small drawn world in `svco/tiny_world`: it exists so that
S-VCO and its relatives can be run, tested and compared on two CPU cores. It answers from its language prior more often
than it should, as the paper says VLMs do, because its last stage of pretraining is on lazy captions.

Made {date} by `{command}` on {threads} CPU thread(s) in {minutes:.0f} minutes (torch {torch}). Apache-2.0.

Where it starts, measured by the same command ({date}). A pair is right when for **both** images the true response is
likelier than the other side's; log-probabilities are summed over the response and its end token.

{table}

The gate pairs are rendered when asked for (`svco.tiny_world.contrast.world_pairs("gate", …)`) and shipped nowhere; their
standard error is about 1 point over all and 3 points a kind, that of the 256 held-out pairs 3 points over all.
"""


def make_and_measure(output: Path, seed: int, threads: int, gate: int, stages: Path | None) -> None:
    """Trains all stages, saves model and processor into ``output`` and writes README.md with what it measures."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    processor = make_processor()
    model = make_model(processor)
    processor.save_pretrained(output)
    family = load_family(str(_saved(model, output)), 128)
    minutes = train(model, family, Schedule(seed=seed), stages) / 60
    _saved(model, output)
    model.eval()
    measured = {
        f"{split} ({count})": measure(model, family, split, count)
        for split, count in (("val", SPLITS["val"][0]), ("heldout", SPLITS["heldout"][0]), ("gate", gate))
    }
    card = CARD.format(
        parameters=model.num_parameters(),
        date=datetime.date.today(),
        threads=threads,
        minutes=minutes,
        command="python launchers/make_tiny_base.py",
        torch=torch.__version__.partition("+")[0],
        table=markdown([["", *measured], *_rows(list(measured.values()))]),
    )
    (output / "README.md").write_text(card, encoding="utf-8")
    print(card)


def _saved(model: Any, output: Path) -> Path:
    model.save_pretrained(output)
    for file in output.iterdir():
        file.chmod(0o644)
    return output


def bar(items: Iterable[int], what: str) -> Iterable[int]:
    return shown(True)(items, what)


def train(model: Any, family: Any, schedule: Schedule, stages: Path | None) -> float:
    """The three stages on ``model`` in place; their seconds. With ``stages``, finished ones are kept and not repeated."""
    seconds = 0.0

    def stage(name: str, learn: Callable[[], None]) -> None:
        nonlocal seconds
        kept = stages / f"{name}.pt" if stages else None
        if kept is not None and kept.exists():
            stored = torch.load(kept, weights_only=True)
            model.load_state_dict(stored["weights"])
        else:
            began = time.monotonic()
            learn()
            stored = {"weights": model.state_dict(), "seconds": time.monotonic() - began}
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(stored, kept)
        seconds += stored["seconds"]

    def sight() -> None:
        pool = make_pool(family, schedule.pool // 2, schedule.seed + 1, 0.0, bar)
        learn_sight(model, pool, schedule.sight_steps, schedule.seed, bar)

    def answers(lazy: bool) -> None:
        count, correlated = (schedule.pool // 2, 0.5) if lazy else (schedule.pool, 0.0)
        pool = encode_pool(model, make_pool(family, count, schedule.seed + 2 + lazy, correlated, bar))
        learn_answers(model, family, pool, schedule, lazy, bar)

    stage("sight", sight)
    model.model.vision_tower.requires_grad_(False)
    stage("truth", lambda: answers(False))
    stage("lazy", lambda: answers(True))
    model.model.vision_tower.requires_grad_(True)
    return seconds


@torch.no_grad()
def measure(model: Any, family: Any, split: str, count: int) -> dict[str, float]:
    """Metrics of the first ``count`` pairs of a split, with pair accuracy by contrast type and by kind."""
    encode = Encode(family, PackedCollate())
    model.set_attn_implementation({"text_config": register("sdpa"), "vision_config": "sdpa"})
    scorer = PackedScorer(family, model, Reference(), adapter_switch)
    logps, tokens, texts = [], [], []
    for start in bar(range(0, count, 64), f"measuring {split}"):
        pairs = list(world_pairs(split, start, min(64, count - start)))
        batch, _ = encode(pairs)
        scores, _ = scorer(batch)
        logps.append(scores.logps.double().numpy())
        tokens.append(scores.tokens.numpy())
        texts += [pair.text for pair in pairs]
    found = metrics(np.concatenate(logps), np.concatenate(tokens))
    right = pair_right(np.concatenate(logps))
    for label in ("contrast", "kind"):
        names = np.array([getattr(text, label) for text in texts])
        found |= {f"{label} {name}": float(right[names == name].mean()) for name in dict.fromkeys(names.tolist())}
    unseen = np.array([bool(text.facts["unseen"]) for text in texts])
    if unseen.any():
        found["unseen combinations"] = float(right[unseen].mean())
    return found


def _rows(measured: list[dict[str, float]]) -> list[list[str]]:
    names = [("pair accuracy", "pair_accuracy")]
    names += [(f"pair accuracy, {c}", f"contrast {c}") for c in dict.fromkeys(CONTRAST_OF.values())]
    names += [(f"· {kind}", f"kind {kind}") for kind in CONTRAST_OF]
    names += [
        ("· combinations never seen in training", "unseen combinations"),
        ("perplexity, match", "perplexity_match"),
        ("perplexity, blind", "perplexity_blind"),
        ("perplexity, clash", "perplexity_clash"),
        ("match − blind, nats a response", "match_minus_blind"),
        ("blind − clash, nats a response", "blind_minus_clash"),
        ("likelier without the image", "blind_likelier"),
    ]

    def cell(found: dict[str, float], key: str) -> str:
        if key not in found:
            return "–"
        return f"{found[key]:.2f}" if key.startswith("perplexity") or "minus" in key else f"{found[key]:.1%}"

    return [[title, *(cell(found, key) for found in measured)] for title, key in names]

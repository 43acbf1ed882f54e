"""The filter's page and its figures as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ....basics.markdown import markdown
from .tally import CLASSES, Tally
from .thresholds import CLIP, DINO, VERDICTS


def facts(tally: Tally) -> dict[str, Any]:
    """What ``filter.json`` holds of the counts."""
    general, others = tally.thresholds.general, tally.others()
    return {
        "pairs": {"scored": tally.scored, "kept": tally.kept, "unreadable": tally.unread},
        "thresholds": {
            "clip_above": general.clip_above,
            "dino_below": general.dino_below,
            "of_type": {kind: [own.clip_above, own.dino_below] for kind, own in tally.thresholds.of_type.items()},
            "exempt": sorted(tally.thresholds.exempt),
        },
        "verdicts": [
            {"source": source, "type": kind, "verdict": verdict, "pairs": count}
            for (source, kind, verdict), count in sorted(tally.verdicts.items())
        ],
        "others": {
            "clip_above": others[CLIP],
            "dino_below": others[DINO],
            "kept": [[tally.would_keep(clip, dino) for dino in others[DINO]] for clip in others[CLIP]],
        },
        "unreadable": tally.unreadable,
    }


def page(tally: Tally, result: dict[str, Any]) -> str:
    """The page, Markdown; ``result`` is what filter.json holds."""
    encoders = result["encoders"]
    parts = [
        "# Filter",
        f"{tally.kept:,} of {tally.scored:,} pairs kept: cosine above {tally.thresholds.general.clip_above:g} under "
        f"`{encoders[CLIP]['name']}` and below {tally.thresholds.general.dino_below:g} under `{encoders[DINO]['name']}`.",
        "![Every pair's two similarities](scores.png)",
        "## By source and type",
        acceptance(tally),
        "## What other thresholds would keep",
        "Pairs, if all types had them; rows: above, under CLIP; columns: below, under DINOv2. The same command with "
        "these thresholds and the same `--cache` encodes nothing again.",
        _others(result["others"]),
    ]
    if any(tally.nearest.values()):
        parts += ["## Nearest to the thresholds", "![Borderline pairs](borderline.png)"]
    if tally.unread:
        parts += ["## Unreadable", *(f"- {reason}" for reason in tally.unreadable)]
    return "\n\n".join(parts) + "\n"


def acceptance(tally: Tally) -> str:
    """Source, type, pairs, kept, share, and the reasons why others are not."""
    groups: dict[tuple[str, str], Counter[str]] = {}
    for (source, kind, verdict), count in tally.verdicts.items():
        groups.setdefault((source, kind), Counter())[verdict] += count
    whole = sum(groups.values(), Counter[str]())
    lines = [["source", "type", "pairs", "share kept", *VERDICTS]]
    for (source, kind), counts in [*sorted(groups.items()), (("all", ""), whole)]:
        total = counts.total()
        kept = sum(count for verdict, count in counts.items() if CLASSES[verdict] != "left out")
        lines.append(
            [source or "-", kind, f"{total:,}", f"{kept / total:.1%}", *(f"{counts[name]:,}" for name in VERDICTS)]
        )
    return markdown(lines, texts=2)


def _others(found: dict[str, Any]) -> str:
    lines = [["", *(f"< {value:g}" for value in found["dino_below"])]]
    for value, counts in zip(found["clip_above"], found["kept"], strict=True):
        lines.append([f"> {value:g}", *(f"{count:,}" for count in counts)])
    return markdown(lines)

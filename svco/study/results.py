"""What the finished tasks of a study say, one row a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluate import metrics, pair_right
from ..pairs import PairText
from ..shards import ShardSet
from ..views import CLASH, MATCH
from .cells import BASE, Task, pair_flops
from .run import seconds
from .sources import shards_of
from .spec import Group, Study

Measures = dict[str, float]
"""``test.metric`` -> value."""


@dataclass(frozen=True)
class Scored:
    """What one model says of the N pairs of one test set."""

    keys: np.ndarray
    """(N,) str."""
    contrasts: np.ndarray
    """(N,) str."""
    logps: np.ndarray
    """(N, 2, V) float64, nats."""
    tokens: np.ndarray
    """(N, 2) int64."""

    @classmethod
    def read(cls, evaluation: Path, test: str) -> Scored:
        with np.load(evaluation / f"{test}.npz") as arrays:
            return cls(arrays["key"], arrays["contrast"], arrays["logps"], arrays["tokens"])


@dataclass(frozen=True)
class Row:
    """A finished task's figures."""

    group: str
    """Name of the group."""
    method: str
    """Method, or BASE."""
    data: str
    """Training set."""
    seed: int
    """Its seed."""
    measures: Measures
    """What was measured."""
    settings: dict[str, Any]
    """Its recipe keys."""
    flops_a_pair: float
    """FLOPs of a training pair, without a cached reference's; 0 for BASE."""
    seconds: float
    """Wall time of its commands."""
    evaluation: str
    """Folder of its scores."""


def rows(study: Study, tasks: Iterable[Task]) -> Iterator[Row]:
    """The rows of those of ``tasks`` that are finished."""
    groups = {group.name: group for group in study.groups}
    for task in tasks:
        if task.finished:
            work = 0.0 if task.method == BASE else pair_flops(study, task.settings)
            measured = measures(study, groups[task.group], task.evaluation)
            yield Row(
                task.group,
                task.method,
                task.data,
                task.seed,
                measured,
                task.settings,
                work,
                seconds(task),
                str(task.evaluation),
            )


def write_rows(path: Path, found: Iterable[Row]) -> None:
    """``results.jsonl``, replaced in one move."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(vars(row), default=list) + "\n" for row in found), encoding="utf-8")
    temporary.replace(path)


def measures(study: Study, group: Group, evaluation: Path) -> Measures:
    """Every figure of one evaluation."""
    found: Measures = {}
    for place, test in enumerate(group.tests):
        scored = Scored.read(evaluation, test)
        found |= {f"{test}.{name}": value for name, value in set_measures(scored).items()}
        answers = evaluation / f"{test}.answers.jsonl"
        if place == 0 and group.generate and answers.exists():
            found |= {f"{test}.{name}": value for name, value in answer_measures(answers).items()}
    told = json.loads((evaluation / "eval.json").read_text())
    for name, benchmark in (told.get("benchmarks") or {}).items():
        found[f"{name}.score"] = benchmark["score"]
    shift = {"artefact": _artefact, "typical": _typical}.get(group.kind)
    return found | (shift(study, group, evaluation) if shift else {})


def set_measures(scored: Scored) -> Measures:
    """The metrics of :func:`svco.evaluate.metrics`, pair accuracy by contrast type, and nats a token under match."""
    right = pair_right(scored.logps)
    own = scored.logps[..., MATCH] > scored.logps[..., CLASH]
    return {
        **metrics(scored.logps, scored.tokens),
        **{f"pair_accuracy.{kind}": float(right[scored.contrasts == kind].mean()) for kind in set(scored.contrasts)},
        "own_image": float(own.mean()),
        "nll_match": float(-scored.logps[..., MATCH].sum() / scored.tokens.sum()),
    }


def answer_measures(path: Path) -> Measures:
    """Share of generated answers that say something false of the scene, and of empty ones."""
    answers = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    judged = [answer for answer in answers if answer["false"] is not None]
    if not judged:
        return {}
    return {
        "hallucination": sum(bool(answer["false"]) for answer in judged) / len(judged),
        "empty": sum(not answer["answer"].strip() for answer in judged) / len(judged),
    }


@cache
def texts(spec: tuple[str, ...]) -> dict[str, PairText]:
    """Key -> text of a test set."""
    shards = ShardSet.open(spec)
    return {text.key: text for text in map(shards.read_text, range(len(shards)))}


def _artefact(study: Study, group: Group, evaluation: Path) -> Measures:
    """A response prefers its own image when its log-prob is higher there than under the other side's.

    ``own_edited``: how often, of the responses whose own image is the edited one; ``own_other``: of the others. ``penalty``: nats
    that the artefact on its own image takes from a response, against the same image without it.
    """
    clean, shifted = (Scored.read(evaluation, test) for test in group.tests[:2])
    facts = texts(shards_of(study, study.tests[group.tests[1]]))
    if (clean.keys != shifted.keys).any():
        clean = _aligned(clean, shifted.keys)
    edited = np.array([facts[key].facts["edited"] for key in shifted.keys.tolist()])
    here = np.arange(len(edited))
    own = shifted.logps[..., MATCH] > shifted.logps[..., CLASH]
    lost = clean.logps[here, edited, MATCH] - shifted.logps[here, edited, MATCH]
    test = group.tests[1]
    return {
        f"{test}.own_edited": float(own[here, edited].mean()),
        f"{test}.own_other": float(own[here, 1 - edited].mean()),
        f"{test}.penalty": float(lost.mean()),
    }


def _aligned(scored: Scored, keys: np.ndarray) -> Scored:
    """``scored`` in the order of ``keys``, which it must all hold."""
    place = {key: n for n, key in enumerate(scored.keys.tolist())}
    order = [place[key] for key in keys.tolist()]
    return Scored(scored.keys[order], scored.contrasts[order], scored.logps[order], scored.tokens[order])


def _typical(study: Study, group: Group, evaluation: Path) -> Measures:
    """How often a response prefers its own image: of the more typical scene's, and of the less typical one's."""
    from ..world.scenes import Scene, Thing
    from ..world.variants import typicality

    test = group.tests[0]
    scored, facts = Scored.read(evaluation, test), texts(shards_of(study, study.tests[test]))

    def usual(scene: list[dict[str, Any]]) -> float:
        return typicality(Scene(tuple(Thing(**{**thing, "cell": tuple(thing["cell"])}) for thing in scene)))

    scores = np.array([[usual(scene) for scene in facts[key].facts["scenes"]] for key in scored.keys.tolist()])
    told = scores[:, 0] != scores[:, 1]
    more = scores[told].argmax(1)
    own = (scored.logps[..., MATCH] > scored.logps[..., CLASH])[told]
    here = np.arange(len(own))
    return {
        f"{test}.own_typical": float(own[here, more].mean()),
        f"{test}.own_untypical": float(own[here, 1 - more].mean()),
    }

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
        found |= _unseen(study, test, scored)
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


def right(row: Row, test: str) -> np.ndarray:
    """(N,) bool in the order of the keys: the pairs of ``test`` that a row's model gets right."""
    return pair_right(_sorted(Scored.read(Path(row.evaluation), test)).logps)


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


def _unseen(study: Study, test: str, scored: Scored) -> Measures:
    """Pair accuracy on pairs of attribute combinations that training never shows, where the shards say which those are."""
    facts = texts(shards_of(study, study.tests[test]))
    unseen = np.array([key in facts and bool(facts[key].facts.get("unseen")) for key in scored.keys.tolist()])
    return {f"{test}.unseen": float(pair_right(scored.logps)[unseen].mean())} if unseen.any() else {}


def _artefact(study: Study, group: Group, evaluation: Path) -> Measures:
    found = {name: float(values.mean()) for name, values in edited(study, group, evaluation).items()}
    return {f"{group.tests[1]}.{name}": value for name, value in found.items()}


def edited(study: Study, group: Group, evaluation: Path) -> dict[str, np.ndarray]:
    """What an artefact does to each of the N pairs of an ``artefact`` group's second test set, in the order of their keys.

    A response prefers its own image when its log-prob is higher there than under the other side's. ``own_edited`` (N,): whether
    the response does whose own image is the edited one; ``own_other``: whether the other does; ``penalty``: nats that the
    artefact takes from a response under its own image, against the same image without it in the first test set.
    """
    shifted = _sorted(Scored.read(evaluation, group.tests[1]))
    clean = _sorted(Scored.read(evaluation, group.tests[0]), set(shifted.keys.tolist()))
    facts = texts(shards_of(study, study.tests[group.tests[1]]))
    side = np.array([facts[key].facts["edited"] for key in shifted.keys.tolist()])
    here = np.arange(len(side))
    own = shifted.logps[..., MATCH] > shifted.logps[..., CLASH]
    return {
        "own_edited": own[here, side],
        "own_other": own[here, 1 - side],
        "penalty": clean.logps[here, side, MATCH] - shifted.logps[here, side, MATCH],
    }


def _sorted(scored: Scored, wanted: set[str] | None = None) -> Scored:
    """``scored`` in the order of its keys, of the ``wanted`` ones alone."""
    order = [n for n in np.argsort(scored.keys) if wanted is None or scored.keys[n] in wanted]
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

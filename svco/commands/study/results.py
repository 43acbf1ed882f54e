"""What the finished tasks of a study say, one row a task."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.files import write_whole
from ...basics.secrets import redacted_tree
from ...basics.strict_json import json_text
from ...basics.views import CLASH, MATCH
from ...data.pairs import PairText
from ...data.shards import ShardSet
from ...scores.measures import scored
from ...scores.pair_scores import pair_right
from ..evaluation import RESULT
from ..evaluation.against import answers_file, same_pairs
from ..evaluation.benchmarks.choices import read_lines
from ..evaluation.measures import answered
from ..evaluation.scoring import SetScores
from .cells import BASE, Task, pair_flops
from .run import seconds
from .sources import shards_of
from .spec import Group, Study

Measures = dict[str, float]
"""``test.metric`` -> value."""


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
        if task.evaluation is not None and task.finished:
            work = 0.0 if task.method == BASE else pair_flops(study, task.settings)
            measured = measures(study, groups[task.group], task.evaluation)
            yield Row(
                group=task.group,
                method=task.method,
                data=task.data,
                seed=task.seed,
                measures=measured,
                settings=task.settings,
                flops_a_pair=work,
                seconds=seconds(task),
                evaluation=str(task.evaluation),
            )


def write_rows(path: Path, found: Iterable[Row]) -> None:
    """``results.jsonl``, replaced in one move."""
    write_whole(path, "".join(json_text(redacted_tree(vars(row)), default=list) + "\n" for row in found))


def measures(study: Study, group: Group, evaluation: Path) -> Measures:
    """Every figure of one evaluation."""
    found: Measures = {}
    for place, test in enumerate(group.tests):
        scores = SetScores.load(evaluation / f"{test}.npz")
        found |= {f"{test}.{name}": value for name, value in set_measures(scores).items()}
        answers = answers_file(evaluation, test)
        if place == 0 and group.generate and answers.exists():
            found |= {f"{test}.{name}": value for name, value in answer_measures(answers).items()}
        found |= _unseen(study, test, scores)
    result = json.loads((evaluation / RESULT).read_text())
    for name, benchmark in (result.get("benchmarks") or {}).items():
        found[f"{name}.score"] = benchmark["score"]
    if group.kind == "artefact":
        found |= _artefact(study, group, evaluation)
    elif group.kind == "typical":
        found |= _typical(study, group, evaluation)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def set_measures(scores: SetScores) -> Measures:
    """The measures of :func:`svco.scores.measures.scored`, and pair accuracy by contrast type."""
    correct = pair_right(scores.logps)
    return {
        **{name: measure.value for name, measure in scored(scores.logps, scores.tokens).items()},
        **{f"pair_accuracy.{kind}": float(correct[scores.contrast == kind].mean()) for kind in set(scores.contrast)},
    }


def right(evaluation: str, test: str) -> dict[str, float]:
    """Key -> 1.0 where the model evaluated gets the pair of ``test`` right, else 0.0."""
    scores = SetScores.load(Path(evaluation) / f"{test}.npz")
    return dict(zip(scores.key.tolist(), pair_right(scores.logps).astype(float).tolist()))


def answer_measures(path: Path) -> Measures:
    """The measures of :func:`svco.commands.evaluation.measures.answered`: answers that say something false, and empty ones."""
    return {name: measure.value for name, measure in answered(read_lines(path)).items()}


@cache
def texts(spec: tuple[str, ...]) -> dict[str, PairText]:
    """Key -> text of a test set."""
    shards = ShardSet.open(spec)
    return {text.key: text for text in map(shards.read_text, range(len(shards)))}


def _unseen(study: Study, test: str, scores: SetScores) -> Measures:
    """Pair accuracy on pairs of attribute combinations that training never shows, where the shards say which those are."""
    facts = texts(shards_of(study, study.tests[test]))
    unseen = np.array(
        [key in facts and bool(facts[key].facts.get("unseen")) for key in scores.key.tolist()], dtype=bool
    )
    return {f"{test}.unseen": float(pair_right(scores.logps)[unseen].mean())} if unseen.any() else {}


def _artefact(study: Study, group: Group, evaluation: Path) -> Measures:
    values = edited(study, group, evaluation)
    return {f"{group.tests[1]}.{name}": float(np.mean(list(pairs.values()))) for name, pairs in values.items()}


def edited(study: Study, group: Group, evaluation: Path) -> dict[str, dict[str, float]]:
    """What an artefact does to each pair of an ``artefact`` group's second test set: figure -> key -> value.

    A response prefers its own image when its log-prob is higher there than under the other side's. ``own_edited``: 1.0 where
    the response does whose own image is the edited one; ``own_other``: where the other does; ``penalty``: nats that the
    artefact takes from a response under its own image, against the same image without it in the first test set.
    """
    clean, shifted = (SetScores.load(evaluation / f"{test}.npz") for test in group.tests[:2])
    clean, shifted = same_pairs(clean, shifted)
    facts = texts(shards_of(study, study.tests[group.tests[1]]))
    keys = shifted.key.tolist()
    side, here = np.array([facts[key].facts["edited"] for key in keys]), np.arange(len(keys))
    own = (shifted.logps[..., MATCH] > shifted.logps[..., CLASH]).astype(float)
    found = {
        "own_edited": own[here, side],
        "own_other": own[here, 1 - side],
        "penalty": clean.logps[here, side, MATCH] - shifted.logps[here, side, MATCH],
    }
    return {name: dict(zip(keys, values.tolist())) for name, values in found.items()}


def _typical(study: Study, group: Group, evaluation: Path) -> Measures:
    """How often a response prefers its own image: of the more typical scene's, and of the less typical one's."""
    from ...tiny_world.scenes import Scene, Thing
    from ...tiny_world.variants import typicality

    test = group.tests[0]
    scores, facts = SetScores.load(evaluation / f"{test}.npz"), texts(shards_of(study, study.tests[test]))

    def usual(scene: list[dict[str, Any]]) -> float:
        return typicality(Scene(tuple(Thing(**{**thing, "cell": tuple(thing["cell"])}) for thing in scene)))

    usuals = np.array([[usual(scene) for scene in facts[key].facts["scenes"]] for key in scores.key.tolist()])
    differ = usuals[:, 0] != usuals[:, 1]
    more = usuals[differ].argmax(1)
    own = (scores.logps[..., MATCH] > scores.logps[..., CLASH])[differ]
    here = np.arange(len(own))
    return {
        f"{test}.own_typical": float(own[here, more].mean()),
        f"{test}.own_untypical": float(own[here, 1 - more].mean()),
    }

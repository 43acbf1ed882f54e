"""A study's file, its tasks, and the arithmetic of its tables."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import yaml
from places import ROOT, STUDIES

from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.commands.evaluation.scoring import SetScores
from svco.commands.study import conduct, published
from svco.commands.study.cells import cell_tasks, choice, equal_steps, pair_flops, trial_tasks
from svco.commands.study.results import Row, measures, set_measures
from svco.commands.study.spec import Group, Source, load_study
from svco.commands.study.tables import (
    Column,
    average_gains,
    columns_of,
    contrasted,
    group_table,
    paired,
    standard_error,
)
from svco.data.shards import write_shards
from svco.record.lock import FolderLock
from svco.tiny_world.variants import Variant


@pytest.fixture
def study(monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_study(ROOT / "launchers" / "recipes" / "study_tiny.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_shipped_study_is_read(path):
    study = load_study(path)
    assert study.groups and study.against in {cell for group in study.groups for cell in group.cells}
    assert (ROOT / study.recipe).exists()


def test_the_shipped_study_has_every_row_that_the_paper_and_the_issue_name(study):
    (main,) = [group for group in study.groups if group.name == "main"]
    wanted = {("SFT", "MVC"), *((m, d) for m in ("DPO", "mDPO", "S-VCO") for d in ("VLF", "MVC"))}
    wanted |= {(m, "MVC") for m in ("DPO, both sides", "VCO", "attend only", "reject only", "SymMPO", "OViP")}
    assert wanted | {("IC-VCO-single", "MVC"), ("S-VCO", "unfiltered")} <= set(main.cells)
    assert len(study.seeds) >= 3
    assert {group.kind for group in study.groups} == {"methods", "artefact", "typical"}
    for test in ("clean", "outline", "stamped"):
        assert study.tests[test].pairs >= 2000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seedz": [1]}, "Did you mean 'seeds'"),
        ({"settings": {"optim.lrr": 1}}, "Did you mean 'optim.lr'"),
        ({"groups": [{"name": "x", "rows": [["SVCO", "MVC"]]}]}, "unknown method 'SVCO'. Did you mean 'S-VCO'"),
        ({"groups": [{"name": "x", "rows": [["S-VCO", "MVC"]], "tests": ["cleen"]}]}, "Did you mean 'clean'"),
        ({"trials_of": {"SFT": [{"optim.lr": 1e-3}]}}, "the budget must be the same for all"),
        ({"trials_of": {"SFT": [{"optim.lrr": 1}, {"optim.lr": 1}]}}, "trials_of.SFT: unknown recipe key 'optim.lrr'"),
        ({"data": {"MVC": {"world": "plane"}}}, "Did you mean 'plain'"),
        ({"data": {"MVC": {"world": "plain", "corrupt": "MVC"}}}, "exactly one of shards, corrupt and world"),
        (
            {"data": {"MVC": {"world": "plain"}, "VLF": {"corrupt": "MVC", "kind": "blur"}}},
            "one of crop, noise, grey, zero",
        ),
        ({"seeds": ["a"]}, "must be int"),
        ({"groups": [{"name": "x", "tests": ["clean"]}]}, "has no rows"),
        (
            {"groups": [{"name": "../x", "rows": [["S-VCO", "MVC"]], "tests": ["clean"]}]},
            "the group '../x' names files",
        ),
        ({"groups": [{"name": "x", "rows": [["S-VCO", "MVC"]]}]}, "has no tests"),
        (
            {"groups": [{"name": "x", "kind": "artefact", "rows": [["S-VCO", "MVC"]], "tests": ["clean"]}]},
            "a clean set and then one of 'world: artefact'",
        ),
        ({"against": ["S-VCO", "MCV"]}, "Did you mean 'MVC'"),
        ({"benchmarks": {"mvp": "x"}}, "Did you mean 'mmvp'"),
    ],
)
def test_mistakes_are_named(tmp_path, change, said):
    tree = yaml.safe_load((ROOT / "launchers" / "recipes" / "study_tiny.yaml").read_text()) | change
    tree.pop("quick")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError) as error:
        load_study(tmp_path / "s.yaml")
    assert said in str(error.value)


def test_a_task_has_a_folder_of_its_own_for_whatever_decides_its_result(study, tmp_path):
    study = replace(study, root=str(tmp_path))
    first = trial_tasks(study)[0]
    other_lr = replace(study, settings=study.settings | {"optim.steps": 33})
    other_data = replace(study, validation=replace(study.validation, pairs=100))
    folders = {trial_tasks(s)[0].folder for s in (study, other_lr, other_data)}
    assert len(folders) == 3
    assert len({task.folder for task in trial_tasks(study)}) == len(trial_tasks(study))
    assert not first.finished
    with pytest.raises(UserError, match="are not finished, and they choose its settings"):
        cell_tasks(study)


def test_the_best_trial_is_chosen_and_cells_share_what_groups_share(study, tmp_path):
    study = replace(study, root=str(tmp_path))
    for n, task in enumerate(trial_tasks(study)):
        task.folder.mkdir(parents=True)
        (task.folder / "train.done").write_text("1.0")
        task.run.mkdir(parents=True)
        line = {"step": 32, "validation/pair_accuracy": [0.5, 0.7, 0.7, 0.6][n % 4]}
        (task.run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert choice(study, "S-VCO", "MVC") is study.trials[1], "of equal ones the first"
    tasks = cell_tasks(study, ("main", "stamped", "equal-compute"))
    named = {(t.group, t.method, t.data, t.seed): t for t in tasks}
    assert named["stamped", "S-VCO", "stamped", 0].folder == named["equal-compute", "S-VCO", "stamped", 0].folder
    dpo = named["equal-compute", "DPO", "stamped", 0].settings
    # S-VCO scores six cells under three prefixes, DPO two under one: it gets more steps for the same FLOPs.
    ratio = (
        dpo["optim.steps"]
        * pair_flops(study, dpo)
        / (32 * pair_flops(study, study.settings | {"data.train": dpo["data.train"]}))
    )
    assert dpo["optim.steps"] > 50
    assert ratio == pytest.approx(1, abs=0.02)
    assert equal_steps(study, "DPO", dpo) == 32, "against itself"


def scores(folder, test, keys, logps, contrasts=None):
    folder.mkdir(exist_ok=True)
    contrasts = contrasts or ["object"] * len(keys)
    np.savez(
        folder / f"{test}.npz", key=np.array(keys), contrast=np.array(contrasts), kind=np.array(contrasts),
        logps=logps, tokens=np.full((len(keys), 2), 5),
    )  # fmt: skip
    (folder / "eval.json").write_text("{}")


def test_an_artefacts_penalty_is_what_it_takes_from_its_own_response(tmp_path, study):
    pairs = list(Variant("artefact", side="random").pairs("heldout", 24))
    write_shards(pairs, tmp_path / "shards", "heldout", 24)
    keys, edited = [p.text.key for p in pairs], np.array([p.text.facts["edited"] for p in pairs])
    rng = np.random.default_rng(0)
    clean = rng.normal(-5, 1, (24, 2, 3))
    clean[..., 0] += 8
    shifted = clean.copy()
    shifted[np.arange(24), edited, 0] -= 12.0
    order = rng.permutation(24)
    scores(tmp_path / "eval", "clean", [keys[n] for n in order], clean[order])
    scores(tmp_path / "eval", "stamped", keys, shifted)
    source = Source(shards=(str(tmp_path / "shards"),))
    study = replace(study, tests={**study.tests, "clean": source, "stamped": source})
    group = Group("g", kind="artefact", rows=(("DPO", "stamped"),), tests=("clean", "stamped"))
    found = measures(study, group, tmp_path / "eval")
    assert found["stamped.penalty"] == pytest.approx(12.0)
    expected = (shifted[np.arange(24), edited, 0] > shifted[np.arange(24), edited, 2]).mean()
    assert found["stamped.own_edited"] == expected < 0.5
    assert (
        found["stamped.own_other"] == (clean[np.arange(24), 1 - edited, 0] > clean[np.arange(24), 1 - edited, 2]).mean()
    )


def row(tmp_path, method, seed, logps, contrasts):
    folder = tmp_path / f"{method}{seed}"
    scores(folder, "clean", [f"k{n:02d}" for n in range(len(logps))], logps, contrasts)
    found = {f"clean.{name}": value for name, value in set_measures(SetScores.load(folder / "clean.npz")).items()}
    return Row("g", method, "" if method == "BASE" else "MVC", seed, found, {}, 1.0, 1.0, str(folder))


def test_paired_differences_and_gains(tmp_path):
    rng = np.random.default_rng(1)
    contrasts = ["object", "position"] * 20
    rows = {m: [row(tmp_path, m, s, rng.normal(0, 1, (40, 2, 3)) + [[b, 0, 0]], contrasts) for s in seeds]
            for m, b, seeds in (("BASE", 0.3, (0,)), ("A", 2, (0, 1, 2)), ("B", 1, (0, 1, 2)))}  # fmt: skip

    def right(r):
        x = np.load(f"{r.evaluation}/clean.npz")["logps"]
        return 100.0 * ((x[:, 0, 0] > x[:, 1, 2]) & (x[:, 1, 0] > x[:, 0, 2]))

    def by_key(r, rows=slice(None)):
        return dict(zip([f"k{n:02d}" for n in range(40)][rows], right(r)[rows]))

    d = np.array([right(a) - right(b) for a, b in zip(rows["A"], rows["B"])])
    per_pair = d.mean(0)
    expected = f"{d.mean():+.2f} ± {per_pair.std(ddof=1) / 40**0.5:.2f} ({d.mean(1).std(ddof=1) / 3**0.5:.2f})"
    assert paired(rows["A"], rows["B"], by_key) == expected
    assert paired(rows["A"], rows["BASE"], by_key).startswith("+"), "BASE has one seed and stands against each"
    assert paired(rows["A"][:1], rows["B"][1:], by_key) == "–", "no seed in common"

    # A pair that one row could not score is left out of all, and the others stay side by side.
    lame = paired(rows["A"], rows["B"], lambda r: by_key(r, slice(r.seed == 1, None)))
    assert lame.startswith(f"{d[:, 1:].mean():+.2f} ± {d.mean(0)[1:].std(ddof=1) / 39**0.5:.2f} ")

    group = Group("g", rows=(("A", "MVC"), ("B", "MVC")), tests=("clean",))
    everyone = [r for many in rows.values() for r in many]
    named = {("BASE", ""): rows["BASE"], ("A", "MVC"): rows["A"]}
    columns = columns_of(group, everyone)
    counted = [c for c in columns if c.better]
    assert [c.metric for c in counted] == ["clean.pair_accuracy.object", "clean.pair_accuracy.position"]
    base = rows["BASE"][0].measures
    gains = [np.mean([100 * (r.measures[c.metric] / base[c.metric] - 1) for c in counted]) for r in rows["A"]]
    assert average_gains(named, columns)["A", "MVC"] == f"{np.mean(gains):.2f} ± {standard_error(np.array(gains)):.2f}"
    table = group_table(group, everyone)
    assert table.count("\n") == 4
    assert "| A · MVC | 3 |" in table


@pytest.mark.parametrize("table", [published.LLAVA_15_7B, published.LLAVA_INTERLEAVE_7B])
def test_the_gain_is_the_papers_total(table):
    """Every TOTAL the paper prints follows from its nine columns by the formula of our tables."""
    columns = [Column(name, name, better=-1 if "hallucination" in name else 1) for name in published.COLUMNS[:9]]
    columns.append(Column("not counted", "CV-Bench", better=0))
    rows = {
        ("BASE", "") if name == "BASE" else (name, "MVC"): [
            Row("g", name, "", 0, dict(zip(published.COLUMNS, values)), {}, 0.0, 0.0, "")
        ]
        for name, values in table.items()
    }
    gains = average_gains(rows, columns)
    for name, values in table.items():
        if name != "BASE":
            assert float(gains[name, "MVC"]) == pytest.approx(values[-1], abs=0.05)
    # A column in which BASE has 0, or which a row lacks, has no relative change.
    rows["BASE", ""][0].measures["MMVP"] = 0
    del rows[("DPO · MVC", "MVC")][0].measures["TextVQA"]
    assert average_gains(rows, columns) == average_gains(
        rows, [column for column in columns if column.metric not in ("MMVP", "TextVQA")]
    )


def test_a_run_that_two_groups_test_is_trained_once(tmp_path):
    """Side by side, both tasks would train in one folder."""
    import sys

    from svco.commands.study.cells import Command, Task
    from svco.commands.study.run import run_tasks

    def command(name, seconds):
        code = f"import time; open({str(tmp_path / name)!r}, 'a').write('x'); time.sleep({seconds})"
        return Command(name, (sys.executable, "-c", code))

    tasks = [
        Task("A", "MVC", 0, {}, tmp_path / "cell", (command("train", 0.5), command(test, 0)), group=test)
        for test in ("first", "second")
    ]
    outcome = run_tasks(tasks, 2, lambda items, what, total: items, "cells")
    assert (outcome.code, outcome.finished) == (0, 2)
    assert {name: (tmp_path / name).read_text() for name in ("train", "first", "second")} == dict.fromkeys(
        ("train", "first", "second"), "x"
    )


def test_a_stop_that_meets_the_end_of_the_last_task_is_heard(tmp_path):
    """Nothing is left of that stage then, and the next one is not to begin."""
    import sys

    from svco.commands.study.cells import Command, Task
    from svco.commands.study.run import run_tasks

    for told, code in ((False, "pass"), (True, "import os, signal; os.kill(os.getppid(), signal.SIGTERM)")):
        hears = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        command = Command("train", (sys.executable, "-c", hears + code + "; import time; time.sleep(0.5)"))
        task = Task("A", "MVC", 0, {}, tmp_path / f"cell-{told}", (command,), group="g")
        outcome = run_tasks([task], 1, lambda items, what, total: items, "trials")
        assert (outcome.code, outcome.finished, outcome.stopped, outcome.asked) == (0, 1, [], told)


def test_a_stop_between_two_stages_is_heard(tmp_path):
    """While the cells are made of what the trials found: it ended the study as a signal that nobody hears ends a process."""
    import os
    import sys

    from svco.commands.study.cells import Command, Task
    from svco.commands.study.run import heeding_signals, run_tasks

    def stage(name):
        command = Command("train", (sys.executable, "-c", "pass"))
        task = Task("A", "MVC", 0, {}, tmp_path / name, (command,), group="g")
        return run_tasks([task], 1, lambda items, what, total: items, name, children)

    before = signal.getsignal(signal.SIGTERM)
    with heeding_signals() as children:
        assert (stage("trials").code, children.stopping) == (0, False)
        os.kill(os.getpid(), signal.SIGTERM)
        outcome = stage("cells")
    assert (outcome.code, outcome.finished, len(outcome.stopped), outcome.asked) == (75, 0, 1, True)
    assert not (tmp_path / "cells" / "train.done").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_few_pairs_of_unknown_type_do_not_make_captions():
    mixed = {"t.pair_accuracy": 0.5, "t.pair_accuracy.unknown": 0.5, "t.pair_accuracy.object": 0.5}
    assert contrasted("t", mixed)
    assert not contrasted("t", {"t.pair_accuracy": 0.5, "t.pair_accuracy.unknown": 0.5})


def test_training_and_test_sets_of_one_name_are_both_made(study, tmp_path):
    from svco.commands.study.sources import make_sources, missing, shards_of

    few = {"stamped": Source(world="artefact", pairs=2)}
    study = replace(
        study,
        root=str(tmp_path),
        data=few,
        tests={"stamped": Source(world="artefact", side="random", split="heldout", pairs=3)},
        trials=(),
        groups=(Group("g", rows=(("DPO", "stamped"),), tests=("stamped",)),),
    )
    assert missing(study) == ("the training set stamped", "the test set stamped")
    make_sources(study, silent)
    assert missing(study) == ()
    from svco.data.shards import ShardSet

    assert len(ShardSet.open(shards_of(study, study.data["stamped"]))) == 2
    assert len(ShardSet.open(shards_of(study, study.tests["stamped"]))) == 3


def test_saying_nothing_is_not_saying_nothing_false():
    from svco.commands.evaluation.measures import answered

    lines = [
        {"key": str(n), "side": 0, "answer": a, "false": f}
        for n, (a, f) in enumerate([("A ring.", ["ring"]), (" ", [])])
    ]
    found = {name: measure.value for name, measure in answered(lines).items()}
    assert found == {"hallucination": 1.0, "empty": 0.5}


def test_the_less_typical_side_is_told_from_the_other(study, tmp_path):
    from svco.tiny_world.contrast import tell
    from svco.tiny_world.variants import typicality

    pairs = list(Variant().pairs("heldout", 24))
    write_shards(pairs, tmp_path / "shards", "heldout", 24)
    usual = np.array([[typicality(scene) for scene in tell("heldout", n).scenes] for n in range(24)])
    logps = np.zeros((24, 2, 3))
    # Every response of the more typical side prefers its own image, no other does.
    logps[..., 0] = np.where(usual > usual[:, ::-1], 1, -1)
    scores(tmp_path / "eval", "clean", [p.text.key for p in pairs], logps)
    study = replace(study, tests={"clean": Source(shards=(str(tmp_path / "shards"),))})
    found = measures(study, Group("g", kind="typical", rows=(("DPO", "typical"),), tests=("clean",)), tmp_path / "eval")
    assert (found["clean.own_typical"], found["clean.own_untypical"]) == (1, 0)


def test_one_group_asks_for_its_own_trials_alone(study):
    everything, few = trial_tasks(study), trial_tasks(study, ("stamped",))
    assert {task.folder for task in few} < {task.folder for task in everything}
    assert {(task.method, task.data) for task in few} == {
        (method, "MVC") for method in ("SFT", "DPO", "DPO, both sides", "mDPO", "VCO", "S-VCO")
    }


def test_two_do_not_conduct_one_study(study, tmp_path):
    study = replace(study, root=str(tmp_path / "study"), groups=())
    (tmp_path / "study").mkdir()
    with FolderLock(tmp_path / "study") as other:
        assert other.take()
        with pytest.raises(UserError, match="Another svco study is at work in"):
            conduct.conduct(study, conduct.How(stages=("trials",)))
        assert not (tmp_path / "study" / "data").exists(), "nothing is made beside it"

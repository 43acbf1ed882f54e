"""The parts a run is made of: log, clock, tally, watches, checkpoints, evaluation, contact sheet."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svco.basics.dist import World
from svco.basics.errors import BadSample, UserError
from svco.engine.optimizer import learning_rate
from svco.engine.state import writer
from svco.recipe.config import ObjectiveConfig, OptimConfig
from svco.record.board import Board
from svco.record.checkpoint import Checkpoints
from svco.record.manifest import Position, Score, best_of, damage, finished, read_position, save_seconds, step_name
from svco.run.clock import Clock
from svco.run.health import BadWatch, Watches
from svco.run.step import naming_the_budget
from svco.run.tally import Tally
from svco.scores.before_after import measure_to_judge_by, metrics, summarise, table
from svco.scores.pair_scores import PairScores, pair_right
from svco.scores.sheet import SheetRow, contact_sheet

ALONE = World()


def test_board_resumed_is_the_board_uninterrupted(tmp_path):
    for folder, stops in (("whole", [6]), ("resumed", [5, 6])):
        (tmp_path / folder).mkdir()
        start = 0
        for stop in stops:
            board = Board(tmp_path / folder, True, start)
            for step in range(start + 1, stop + 1):
                board.write(step, {"loss": 1 / step, "bad": float("nan")})
            start = stop - 2  # the checkpoint lies two steps back
        if folder == "resumed":
            with (tmp_path / folder / "metrics.jsonl").open("a") as stream:
                stream.write('{"step": 7, "lo')  # killed in the middle of a line
            Board(tmp_path / folder, True, 6)
    whole, resumed = ((tmp_path / f / "metrics.jsonl").read_text() for f in ("whole", "resumed"))
    assert whole == resumed
    assert json.loads(whole.splitlines()[1]) == {"step": 2, "loss": 0.5, "bad": None}
    events = [EventAccumulator(str(tmp_path / folder / "tensorboard")).Reload() for folder in ("whole", "resumed")]
    for scalars in (event.Scalars("run/loss") for event in events):
        assert [(one.step, one.value) for one in scalars] == [(step, pytest.approx(1 / step)) for step in range(1, 7)]


def test_a_picture_is_shown_by_tensorboard(tmp_path):
    from PIL import Image

    Image.new("RGB", (7, 5), "red").save(tmp_path / "red.png")
    Board(tmp_path, True).picture("samples", (tmp_path / "red.png").read_bytes(), 3)
    (shown,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("samples")
    assert (shown.step, shown.width, shown.height) == (3, 7, 5)
    assert shown.encoded_image_string == (tmp_path / "red.png").read_bytes()


def test_a_disabled_board_does_nothing(tmp_path):
    board = Board(tmp_path, False)
    board.write(1, {"loss": 1.0})
    board.picture("x", b"", 1)
    board.finish(1, {"loss": 1.0})
    board.close()
    assert list(board.progress(range(3), 0, 3)) == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_clock_counts_what_passes():
    time = iter([0.0, 1.0, 3.0, 3.0, 3.5, 3.5, 10.0, 10.0]).__next__
    clock = Clock(torch.device("cpu"), now=time)
    with clock("forward"):
        pass
    assert list(clock.over("data", [7])) == [7]
    clock.count(tokens=50, pairs=2)
    lap = clock.lap(ALONE)
    assert lap["seconds/forward"] == 2.0
    assert lap["seconds/data"] == 0.5
    assert (lap["seconds/lap"], lap["tokens_per_second"], lap["pairs_per_second"]) == (10.0, 5.0, 0.2)
    assert lap["memory_peak_bytes"] > 10_000_000


def test_tally_is_a_weighted_mean_that_fillers_cannot_touch():
    tally = Tally()
    tally.add({"loss": torch.tensor([1.0, 3.0])}, torch.tensor([1.0, 1.0]))
    tally.add({"loss": torch.tensor([8.0, torch.nan])}, torch.tensor([1.0, 0.0]))
    assert tally.reduce(ALONE) == {"loss": 4.0}
    assert tally.reduce(ALONE) == {}


def test_too_many_bad_samples_stop_the_run():
    watch = BadWatch(0.01, {"bad-json": 1})
    with pytest.warns(UserWarning, match="bad sample .long-query.*sample 'k'"):
        watch.add([BadSample("long-query", "sample 'k'")])
    fresh = watch.take()
    assert fresh == {"bad/long-query": 1}
    watch.check(fresh, 200)
    assert watch.counts == {"bad-json": 1, "long-query": 1}
    watch.check({"bad/long-query": 5.0}, 150)  # too early to tell
    with pytest.raises(UserError, match=r"7 of the 300 pairs seen so far were bad \(1 bad-json, 6 long-query\)"):
        watch.check({}, 300)
    with pytest.raises(UserError):
        BadWatch(0.0, {}).check({"bad/bad-json": 1.0}, 8, at_end=True)


def test_falling_match_warns_once_and_again_when_twice_as_bad():
    lines = [{"delta/0_match": -0.1 * step, "delta/1_match": -0.1 * step, "loss": 1.0} for step in range(60)]
    caught = warned(lines)
    assert len(caught) == 3, "below −1, −2 and −4"
    assert "have become less likely than under the reference" in caught[0]


def warned(lines, before=0):
    """What is warned of at ``lines``, of which ``before`` were logged by the process before this one."""
    lines = [{"step": step, **line} for step, line in enumerate(lines)]
    watches = Watches(ObjectiveConfig(beta=0.1), True, lines[:before])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for line in lines[before:]:
            watches.add(line, line["step"])
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("sign", [1, -1])
def test_blind_that_runs_away_warns_past_one_over_beta_and_again_when_twice_as_far(sign):
    caught = warned([{"delta/0_blind": sign * step, "delta/1_blind": None} for step in range(60)])
    assert len(caught) == 3, "past 10, 20 and 40"
    assert f"{'+' if sign > 0 else '-'}10." in caught[0] and "objective.beta = 10" in caught[0]
    swings = [{"delta/0_blind": 60.0 * (-1) ** step, "delta/1_blind": 3.0} for step in range(60)]
    assert not warned([{"delta/0_blind": 0.0}, *swings]), "no drift"


def test_a_gradient_norm_that_jumps_is_named_counted_and_not_said_at_every_step():
    """Against the median of those before it: neither a slow change nor wide noise is a jump."""
    noise = np.random.default_rng(0).lognormal(0, 0.3, 300)
    assert not warned([{"grad_norm": norm} for norm in noise])
    assert not warned([{"grad_norm": norm * 1.03**step} for step, norm in enumerate(noise)]), "a trend"
    assert not warned([{"grad_norm": norm} for norm in np.random.default_rng(0).lognormal(0, 1.2, 300)]), "wide"
    jumps = {50: 30.0, 51: 31.0, 52: math.nan, 100: 35.0, 200: 100.0}
    lines = [{"grad_norm": jumps.get(step, norm)} for step, norm in enumerate(noise)]
    lines[120] = {"grad_norm": 1.0, "grad_norm_max": 20.0}
    for before in (0, 51):
        caught = warned(lines, before)
        assert [text.split(":")[0] for text in caught] == [f"step {step}" for step in (50, 200) if step >= before]
    watches = Watches(ObjectiveConfig(), False)
    assert [watches.add(line, step)["grad_jumps"] for step, line in enumerate(lines)][-1] == 5


def test_norms_between_two_logs_are_read_when_they_are_logged():
    watches = Watches(ObjectiveConfig(), True)
    for norm in (1.0, 9.0, float("nan"), 2.0):
        watches.stepped(torch.tensor(norm))
    assert watches.norms() == {"grad_norm": 2.0, "grad_norm_max": 9.0}
    watches.stepped(torch.tensor(3.0))
    assert watches.norms() == {"grad_norm": 3.0}


def test_learning_rate():
    config = OptimConfig(lr=1.0, warmup_fraction=0.1, lr_min_ratio=0.1)
    rates = [learning_rate(config, step, 40) for step in range(40)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(config, 22, 40) == pytest.approx(0.55)
    assert 0.1 < rates[-1] < 0.11


def test_running_out_of_memory_names_the_token_budget():
    with pytest.raises(UserError, match="tokens_per_micro_batch is 4096: halve it"), naming_the_budget(4096):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="shape"), naming_the_budget(4096):
        torch.zeros(3).view(2)


POSITION = Position(5, 0, 160, 42, 32, 64, "abc", 1, "lora", {"bad-json": 1})


def write(folder):
    (folder / "part").mkdir()
    (folder / "part" / "weights").write_bytes(b"12345")
    return [folder / "part" / "weights"]


def test_checkpoint_envelope(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, ALONE)
    assert checkpoints.newest() is None
    for step in (5, 10, 15):
        checkpoints.save(replace(POSITION, step=step), write)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-000010", "step-000015"]
    assert checkpoints.newest().name == "step-000015"
    assert read_position(tmp_path / "step-000015") == replace(POSITION, step=15)

    def crash(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(replace(POSITION, step=20), crash)
    assert checkpoints.newest().name == "step-000015", "an unfinished one does not count"
    for change, says in ((b"12344", "other contents"), (b"1234", "4 bytes instead of 5"), (None, "missing")):
        file = tmp_path / "step-000015" / "part" / "weights"
        file.unlink() if change is None else file.write_bytes(change)
        assert says in damage(tmp_path / "step-000015")
    with pytest.warns(UserWarning, match="passing over"):
        assert checkpoints.newest().name == "step-000010"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.booleans()), min_size=1, max_size=8),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 8),
)
def test_the_best_checkpoint_stays_and_counts_by_history(steps, keep, higher, back):
    """Whatever validations say and is due: the best of the history is there; what is gone back behind is not of it."""
    with TemporaryDirectory() as root:
        folder, name = Path(root), "validation/pair_accuracy" if higher else "-validation/pair_accuracy"
        checkpoints = Checkpoints(folder, keep, ALONE, keep_best=name)
        best = None
        for step, (value, due) in enumerate(steps, 1):
            score = None if value is None else Score(name, value, higher)
            if due or checkpoints.improves(score):
                checkpoints.save(replace(POSITION, step=step), write, score)
            if score is not None and (best is None or score.worth > best[1].worth):
                best = (folder / step_name(step), score)
            assert best_of(folder, name) == best, "it never rotates away"
            assert len(finished(folder)) <= keep + 1
        there = [int(path.name[5:]) for path in finished(folder)]
        checkpoints.set_aside(back)
        left = [step for step in there if step <= back and steps[step - 1][0] is not None]
        worth = {step: steps[step - 1][0] * (1 if higher else -1) for step in left}
        expected = None if not left else folder / step_name(max(left, key=lambda step: (worth[step], -step)))
        assert (best_of(folder, name) or [None])[0] == expected
        assert best_of(folder, "validation/another") is None


def test_a_validation_made_up_for_later_counts(tmp_path):
    checkpoints = Checkpoints(tmp_path, 1, ALONE, keep_best="validation/pair_accuracy")
    checkpoints.save(POSITION, write)
    assert not checkpoints.improves(None) and best_of(tmp_path) is None
    score = Score("validation/pair_accuracy", 0.5, True)
    checkpoints.judge(POSITION.step, score)
    checkpoints.judge(POSITION.step + 1, score)  # is not there
    assert best_of(tmp_path) == (tmp_path / step_name(POSITION.step), score)
    assert damage(tmp_path / step_name(POSITION.step)) is None
    for value, better in ((0.5, False), (0.6, True)):
        assert checkpoints.improves(replace(score, value=value)) is better
    (tmp_path / step_name(POSITION.step) / "part" / "weights").unlink()
    assert checkpoints.improves(replace(score, value=0.1)), "a damaged one is no best"


@pytest.mark.parametrize(
    ("key", "corrupt", "found"),
    [
        ("validation/pair_accuracy", False, ("pair_accuracy", True)),
        ("blind_likelier", False, ("blind_likelier", False)),
        ("validation/perplexity_match", False, ("perplexity_match", False)),
        ("-validation/perplexity_clash", False, ("perplexity_clash", True)),
        ("validation/match_minus_corrupt", True, ("match_minus_corrupt", True)),
        ("validation/match_minus_corrupt", False, None),
        ("validation/pair_acuracy", False, None),
        ("loss", False, None),
    ],
)
def test_what_the_best_is_judged_by(key, corrupt, found):
    if found is not None:
        assert measure_to_judge_by(key, corrupt) == found
        return
    with pytest.raises(UserError, match="no number of this run's validation.* Write it as"):
        measure_to_judge_by(key, corrupt)


def test_readers_share_a_checkpoint_between_them(tmp_path):
    def parts(folder):
        files = [folder / f"part-{number}" for number in range(5)]
        for number, file in enumerate(files):
            file.write_bytes(b"x" * (number + 1))
        return files

    folder = Checkpoints(tmp_path, 0, ALONE).save(POSITION, parts)
    for number in range(5):
        whole = (folder / f"part-{number}").read_bytes()
        (folder / f"part-{number}").write_bytes(b"y" * len(whole))
        found = [damage(folder, rank=rank, size=3) for rank in range(3)]
        assert [problem for problem in found if problem] == [
            f"part-{number} has other contents than when it was written"
        ]
        assert damage(folder, contents=False) is None
        (folder / f"part-{number}").write_bytes(whole)
    assert save_seconds(folder) < 10


def test_each_rank_digests_what_it_wrote():
    zero = Path("runs/rank7/checkpoints/step-000003.tmp/zero")
    for name, rank in (
        ("zero_pp_rank_3_mp_rank_00_model_states.pt", 3),
        ("bf16_zero_pp_rank_12_mp_rank_00_optim_states.pt", 12),
        ("mp_rank_00_model_states.pt", 0),
        ("offloaded_tensors/rank02/3_exp_avg.tensor.swp", 2),
        ("zero_to_fp32.py", 0),
    ):
        assert writer(zero / name, zero) == rank


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"global_batch": 8}, {"data": "x"}, {"order": 2}, {"steps": 9}, {"tune": "full"}]
)
def test_another_run_is_another_one(change):
    assert POSITION.differences(replace(POSITION, step=0, pairs=0, bad={})) == {}
    (name,), (value,) = change.keys(), change.values()
    assert list(POSITION.differences(replace(POSITION, **change)).values()) == [(getattr(POSITION, name), value)]


def test_pair_accuracy_compares_responses_under_one_image():
    """Response 1 under image 0 is the *clash* view of side 1; comparing a side's own views would be another measure."""
    logps = np.zeros((4, 2, 3))
    logps[0] = [[-1, 0, -5], [-1, 0, -5]]  # right on both
    logps[1] = [[-1, 0, -5], [-9, 0, -5]]  # under image 1, response 0 (clash of side 0: −5) beats response 1 (−9)
    logps[2] = [[-2, 0, -3], [-2, 0, -1]]  # under image 0, response 1 (−1) beats response 0 (−2)
    logps[3] = [[-1, 0, -3], [-1, 0, -1]]  # a tie is not right
    assert pair_right(logps).tolist() == [True, False, False, False]


def test_summary_and_table():
    policy, reference = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    policy[:] = [-1, -2, -4]
    reference[:] = [-2, -2, -2]
    tokens = np.full((2, 2), 2)
    summary = summarise(PairScores(np.array([3, 5]), policy, reference, tokens), {3: "object", 5: "position"})
    assert summary["after"] == metrics(policy, tokens) | {"pair_accuracy": 1.0}
    assert summary["after"]["match_minus_blind"] == 1.0
    assert summary["after"]["blind_minus_clash"] == 2.0
    assert summary["after"]["perplexity_clash"] == pytest.approx(np.exp(2.0))
    assert summary["before"]["pair_accuracy"] == 0.0
    assert summary["by_contrast"] == {
        kind: {"pairs": 1, "before": 0.0, "after": 1.0} for kind in ("object", "position")
    }
    text = table(summary, "held-out pairs")
    assert "held-out pairs (2 pairs)" in text
    assert "+100.0 pts" in text


def test_contact_sheet_is_drawn(tmp_path, make_pairs):
    from PIL import Image

    rows = [
        SheetRow(
            p.text.key,
            p.text.query,
            p.text.responses,
            p.images,
            np.full((2, 3), -3.0),
            np.full((2, 3), -2.0),
            p.text.contrast,
        )
        for p in make_pairs("val", 0, 2)
    ]
    contact_sheet(rows, tmp_path / "sheet.png", "Title")
    image = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert image.shape[1] == 1150
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500, "pictures are on it"

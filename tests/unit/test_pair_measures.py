"""The scores of a pair set: Winoground's three, their correction for the language prior, and what they say against a base."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from svco.basics.views import BLIND
from svco.scores.before_after import measure_to_judge_by, summarise, table
from svco.scores.measures import MATCHES, matched
from svco.scores.pair_scores import PairScores, without_prior
from svco.scores.statistics import Measure, compare

CELLS = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=6, max_size=6)
"""Six log-probabilities of a pair, from few values: ties are frequent, and sums of them are exact."""


def right(logps):
    """Measure -> (N,) bool."""
    return {
        name: measure.numerator.astype(bool).tolist() for name, measure in matched(np.asarray(logps, float)).items()
    }


def winoground(pair):
    """The published rules, word for word: c{caption}_i{image}."""
    (c0_i0, prior_0, c0_i1), (c1_i1, prior_1, c1_i0) = pair

    def text(a, b, c, d):  # c0_i0, c1_i0, c1_i1, c0_i1
        return a > b and c > d

    image = c0_i0 > c0_i1 and c1_i1 > c1_i0
    plain = text(c0_i0, c1_i0, c1_i1, c0_i1)
    fair = text(c0_i0 - prior_0, c1_i0 - prior_1, c1_i1 - prior_1, c0_i1 - prior_0)
    return dict(zip(MATCHES, (plain, image, plain and image, fair, fair and image), strict=True))


@given(st.lists(CELLS, min_size=1, max_size=12))
def test_the_scores_are_winogrounds(pairs):
    logps = np.array(pairs).reshape(-1, 2, 3)
    found = right(logps)
    assert [{name: found[name][n] for name in MATCHES} for n in range(len(logps))] == list(map(winoground, logps))
    assert right(logps[:, ::-1]) == found  # which side is called 0 says nothing


@given(CELLS, st.integers(-8, 8), st.integers(-8, 8))
def test_the_correction_takes_off_what_the_language_says_and_nothing_else(cells, first, second):
    logps = np.array(cells).reshape(1, 2, 3)
    found = right(logps)
    liked = logps + np.array([first, second]).reshape(1, 2, 1) / 2  # one response is likelier whatever is seen
    for name in ("image_accuracy", "pair_accuracy_corrected", "group_accuracy_corrected"):
        assert right(liked)[name] == found[name]
    even = logps.copy()
    even[..., BLIND] = first / 2  # the language prefers neither
    assert right(even)["pair_accuracy_corrected"] == right(even)["pair_accuracy"] == found["pair_accuracy"]
    assert right(without_prior(logps))["image_accuracy"] == found["image_accuracy"]  # it is its own correction
    assert (without_prior(logps, 0.0) == logps).all() and (without_prior(logps)[..., BLIND] == 0).all()


def test_a_prior_that_decides_is_taken_off():
    """Response 0 is the language's favourite: under image 1 it beats the true one, until its prior is taken off."""
    pair = [[-1.0, -1.5, -2.0], [-3.0, -6.0, -7.0]]
    assert {name: hits[0] for name, hits in right([pair]).items()} == {
        "pair_accuracy": False, "image_accuracy": True, "group_accuracy": False,
        "pair_accuracy_corrected": True, "group_accuracy_corrected": True,
    }  # fmt: skip


def test_ties_and_what_has_no_number_are_not_right():
    tied = np.full((1, 2, 3), -1.0)
    assert not any(hits[0] for hits in right(tied).values())
    assert not any(hits[0] for hits in right(np.full((1, 2, 3), np.nan)).values())
    clear = np.array([[[-1, -2, -3], [-1, -2, -3.0]]])
    assert all(hits[0] for hits in right(clear).values())


def test_a_difference_of_shares_has_the_paired_bootstraps_interval():
    draw = np.random.default_rng(5)
    b = draw.random(240) < 0.4
    a = np.where(draw.random(240) < 0.25, draw.random(240) < 0.8, b)
    found = compare({"x": Measure.share(a)}, {"x": Measure.share(b)})["x"]
    theirs = stats.bootstrap(
        (a.astype(float) - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    )
    low, high = theirs.confidence_interval
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=2.5 / 240)  # steps of 1/240
    assert found.p == pytest.approx(stats.binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue)
    independent = 1.96 * np.sqrt(a.var() / 240 + b.var() / 240)
    assert found.difference.high - found.difference.value < 0.8 * independent  # a bootstrap of unpaired shares is wider
    same = compare({"x": Measure.share(a)}, {"x": Measure.share(a)})["x"]
    assert (same.difference.low, same.difference.high, same.p) == (0, 0, 1)


def test_a_runs_summary_says_how_sure_each_change_is():
    reference, policy = np.zeros((8, 2, 3)), np.zeros((8, 2, 3))
    policy[:7] = [-1, -2, -4]  # seven of eight pairs become right in every sense
    scores = PairScores(np.arange(8), policy, reference, np.full((8, 2), 3))
    summary = summarise(scores, dict.fromkeys(range(8), "object"))
    assert summary["change"].keys() == set(MATCHES)
    for name in MATCHES:
        found = summary["change"][name]
        assert (found["a"], found["b"], found["p"]) == (0.875, 0.0, 2 / 2**7)
        assert 0.5 < found["low"] < 0.875 < found["high"] == 1
        assert summary["after"][name] == 0.875 and measure_to_judge_by(f"validation/{name}", False) == (name, True)
    text = table(summary, "held-out pairs")
    (line,) = [line for line in text.splitlines() if line.startswith("group accuracy, no prior")]
    assert "87.5%" in line and "+87.5 pts" in line and "+100.0], p 0.016" in line
    old = {key: value for key, value in summary.items() if key != "change"}  # of a run before there was any
    assert "+87.5 pts" in table(old, "held-out pairs") and ", p " not in table(old, "held-out pairs")

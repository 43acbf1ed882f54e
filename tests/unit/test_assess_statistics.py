"""Errors, intervals and tests against closed forms, by hand, against scipy and by other ways to the same number."""

import math

import numpy as np
import pytest
from scipy import stats

from svco.scores.statistics import FLIPS, Measure, Z, compare, estimate, mcnemar, wilson


def random(*shape):
    return np.random.default_rng(7).normal(size=shape)


def test_a_mean_has_the_textbook_error_and_a_normal_interval():
    found = estimate(Measure.mean([1.0, 2.0, 3.0, 6.0]))
    assert found.value == 3
    assert found.se == pytest.approx(math.sqrt(14 / 3 / 4))  # squared deviations 4 + 1 + 0 + 9
    assert (found.low, found.high) == pytest.approx((3 - Z * found.se, 3 + Z * found.se))
    assert estimate(Measure.mean([5.0])).json() == {"value": 5.0, "se": None, "low": None, "high": None}


def test_wilsons_interval_at_the_ends_and_in_the_middle():
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    whole = estimate(Measure.share(np.ones(10, bool)))
    assert whole.value == 1 and whole.se == 0 and whole.low == pytest.approx(1 - 0.27753, abs=1e-5)


def test_two_sides_that_always_agree_count_as_one_case():
    once = np.arange(50) % 5 == 0
    twice, single = estimate(Measure.rate(once.astype(float))), estimate(Measure.share(once))
    assert twice.value == single.value and twice.se == single.se
    assert (twice.low, twice.high) == pytest.approx((single.low, single.high), abs=2e-3)
    # Were the sides independent, the same share would be known better.
    apart = np.where(np.arange(50) < 20, 0.5, 0.0)
    assert estimate(Measure.rate(apart)).value == single.value and estimate(Measure.rate(apart)).se < single.se
    assert estimate(Measure.rate([1.0, 1.0, 1.0])).high <= 1


@pytest.mark.parametrize("form", ["mean", "exp"])
def test_a_ratios_error_is_the_jackknifes(form):
    tokens = 5 + np.arange(400) % 11
    measure = Measure(0.3 * tokens + random(400), tokens.astype(float), form)
    left_out = [measure[np.arange(400) != i].value for i in range(400)]
    jackknife = math.sqrt(399 / 400 * np.square(left_out - np.mean(left_out)).sum())
    found = estimate(measure)
    assert found.se == pytest.approx(jackknife, rel=5e-3)
    assert found.low < found.value < found.high
    if form == "exp":
        assert found.low * found.high == pytest.approx(found.value**2)


def test_mcnemar_is_the_binomial_of_the_discordant_pairs():
    a = np.array([1] * 9 + [0] + [1] * 5 + [0] * 5, bool)
    b = np.array([0] * 9 + [1] + [1] * 5 + [0] * 5, bool)
    assert mcnemar(a, b) == 2 * (1 + 10) / 2**10 == mcnemar(b, a)
    assert mcnemar(a, a) == 1
    many = np.arange(4000) < 2000
    assert 0 < mcnemar(many, np.zeros(4000, bool)) < 1e-300 or mcnemar(many, np.zeros(4000, bool)) == 0
    assert mcnemar(many, ~many) == 1


def test_few_pairs_are_exchanged_in_every_way():
    def p(ours, theirs):
        return compare({"x": Measure.mean(ours)}, {"x": Measure.mean(theirs)})["x"].p

    assert p(np.ones(5), np.zeros(5)) == 2 / 32  # all signs one way, or all the other
    assert p([3.0, 1.0, 1.0], [0.0, 0.0, 2.0]) == 6 / 8  # 3 + 1 − 1 is reached by all signs but + − − and its mirror
    assert p(np.arange(6.0), np.arange(6.0)) == 1


def test_many_pairs_agree_with_the_normal_approximation_and_both_find_what_is_there():
    ours = random(300)
    theirs = ours + 0.12 * random(2, 300)[1] + 0.008
    found = compare({"x": Measure.mean(ours)}, {"x": Measure.mean(theirs)})["x"]
    normal = math.erfc(abs(found.difference.value / found.difference.se) / math.sqrt(2))
    assert 0.001 < normal < 0.5 and found.p == pytest.approx(normal, abs=4 * math.sqrt(normal / 10_000) + 0.005)
    paired, alone = found.difference.se, estimate(Measure.mean(ours)).se
    assert paired < alone / 3  # the pairs are the same: most of their spread cancels
    shifted = compare({"x": Measure.mean(ours)}, {"x": Measure.mean(ours + 0.1)})["x"]
    assert shifted.p < 2e-4 and shifted.difference.value == pytest.approx(-0.1)
    again = compare({"x": Measure.mean(ours)}, {"x": Measure.mean(theirs)})["x"]
    assert again == found


def test_perplexities_are_exchanged_whole():
    tokens = np.array([4.0, 6.0, 5.0, 8.0])
    a, b = Measure(0.2 * tokens, tokens, "exp"), Measure(0.5 * tokens, tokens, "exp")
    found = compare({"ppl": a, "only": a}, {"ppl": b})
    assert found.keys() == {"ppl"} and found["ppl"].difference.value == pytest.approx(math.exp(0.2) - math.exp(0.5))
    assert found["ppl"].p == 2 / 16


def test_shares_and_their_tests_are_scipys():
    assert stats.norm.ppf(0.975) == Z
    for count in (1, 2, 13, 60, 4000):
        for hits in sorted({0, 1, count // 3, count // 2, count - 1, count}):
            binomial = stats.binomtest(hits, count)
            interval = binomial.proportion_ci(method="wilson")
            assert wilson(hits, count) == pytest.approx((interval.low, interval.high), rel=1e-12, abs=1e-15)
            a = np.arange(count + 5) < hits  # of ``count`` that differ; on the last five both are right
            b = ~a
            a[-5:] = b[-5:] = True
            assert mcnemar(a, b) == pytest.approx(binomial.pvalue, rel=1e-9, abs=1e-300)


def test_a_means_error_and_interval_are_scipys():
    values = random(50)
    found, interval = estimate(Measure.mean(values)), stats.norm(values.mean(), stats.sem(values)).interval(0.95)
    assert found.se == pytest.approx(stats.sem(values), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-12)


@pytest.mark.parametrize("count", [5, 13, 14])
@pytest.mark.parametrize("form", ["mean", "rate", "exp"])
def test_exchanging_is_scipys_permutation_test_of_paired_samples(form, count):
    """Of whole pairs: what scipy exchanges are their rows. Up to 13 pairs ours is exact too; scipy's of 14 is."""
    draw = np.random.default_rng(count)
    cases, better = draw.integers(1, 9, 2 * count), np.repeat([0.2, 0.0], count)
    sums = {"mean": cases * (draw.normal(size=2 * count) + better), "rate": draw.binomial(cases, 0.5 + better)}
    sums["exp"] = 0.5 * sums["mean"]
    pairs = Measure(sums[form].astype(float), cases.astype(float), form)

    def figures(rows):
        ratio = pairs.numerator[rows].sum(-1) / pairs.denominator[rows].sum(-1)
        return np.exp(ratio) if form == "exp" else ratio

    rows = np.arange(2 * count).reshape(2, count)
    theirs = stats.permutation_test(
        rows, lambda a, b, axis: figures(a) - figures(b), permutation_type="samples", n_resamples=np.inf
    )
    ours = compare({"x": pairs[rows[0]]}, {"x": pairs[rows[1]]})["x"]
    assert ours.difference.value == pytest.approx(theirs.statistic)
    error = 0.0 if count <= 13 else math.sqrt(theirs.pvalue * (1 - theirs.pvalue) / FLIPS)
    assert 0.01 < theirs.pvalue < 1 and ours.p == pytest.approx(theirs.pvalue, abs=1e-12 + 4 * error)


@pytest.mark.parametrize("form", ["mean", "exp"])
def test_the_error_of_a_paired_difference_is_the_bootstraps(form):
    tokens = 5.0 + np.arange(400) % 11
    of_pair, own = random(400), random(2, 2, 400)[1]
    a, b = (Measure(0.3 * tokens + of_pair + 0.3 * noise, tokens, form) for noise in own)
    drawn = stats.bootstrap(
        (np.arange(400),),
        lambda rows: a[rows].value - b[rows].value,
        n_resamples=2000, method="percentile", vectorized=False, rng=np.random.default_rng(3),
    )  # fmt: skip
    found = compare({"x": a}, {"x": b})["x"].difference
    assert found.se == pytest.approx(drawn.standard_error, rel=0.06)  # the bootstrap's own error is 1/√4000
    width = found.high - found.low
    assert (found.low, found.high) == pytest.approx(tuple(drawn.confidence_interval), abs=0.06 * width)

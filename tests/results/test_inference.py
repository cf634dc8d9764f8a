"""Intervals, effect sizes, power, bootstraps and corrections against other libraries, by hand, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from ablate.results.statistics.bootstrap import ENOUGH_SEEDS, hierarchical_bootstrap
from ablate.results.statistics.corrections import adjusted, benjamini_hochberg
from ablate.results.statistics.effect_size import difference_interval, matched_odds, standardised_difference
from ablate.results.statistics.paired import PairedSuite, PairedTest, paired_test
from ablate.results.statistics.permutation import mcnemar_p, sign_flip_p
from ablate.results.statistics.power import (
    Components,
    components,
    examples_needed,
    minimum_detectable_difference,
    power_of,
    seeds_needed,
)


def suite(difference_SE: np.ndarray, clusters: np.ndarray | None = None) -> PairedSuite:
    examples = difference_SE.shape[1]
    cluster_E = np.arange(examples) if clusters is None else clusters
    return PairedSuite(difference_SE.astype(float), np.full(examples, 1 / examples), cluster_E)


def run_test(one: PairedSuite) -> PairedTest:
    return paired_test({"s": one}, {"s": 1.0})


def test_benjamini_hochberg_by_hand_and_against_scipy() -> None:
    # sorted .01 .02 .03 .4 times 4/1 4/2 4/3 4/4, made monotone from the largest down
    assert benjamini_hochberg([0.4, 0.01, 0.03, 0.02]) == pytest.approx([0.4, 0.04, 0.04, 0.04])
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        p = list(rng.random(count) ** 3)
        assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))
        assert adjusted(p, "benjamini-hochberg") == pytest.approx(list(multipletests(p, method="fdr_bh")[1]))
        assert adjusted(p, "holm") == pytest.approx(list(multipletests(p, method="holm")[1]))
        assert adjusted(p, "none") == p
    assert benjamini_hochberg([]) == []


def test_benjamini_hochberg_keeps_the_share_of_false_marks() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(2000):
        z = rng.normal(size=40) + np.where(np.arange(40) < 10, 3.0, 0.0)
        found = np.array(benjamini_hochberg(list(2 * stats.norm.sf(np.abs(z))))) < 0.1
        shares.append(found[10:].sum() / max(found.sum(), 1))
    # expected 0.1 * 30 / 40; standard error 0.002
    assert np.mean(shares) == pytest.approx(0.075, abs=0.008)


def test_mcnemar_is_that_of_statsmodels_and_the_sign_flip_test_of_right_and_wrong() -> None:
    for gained, lost in ((0, 0), (1, 0), (5, 5), (9, 2), (40, 61), (300, 200)):
        p = mcnemar_p(gained, lost)
        if gained + lost:
            assert p == pytest.approx(mcnemar([[10, gained], [lost, 10]], exact=True).pvalue)
        assert sign_flip_p(np.array([1.0] * gained + [-1.0] * lost + [0.0] * 7)) == pytest.approx(p, rel=1e-6)


def test_difference_interval_is_that_of_the_paired_t_test() -> None:
    values = np.array([[0.3, -0.1, 0.7, 0.2, 0.0, 1.0]])
    found = difference_interval(run_test(suite(values)))
    expected = stats.ttest_1samp(values[0], 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_standardised_difference_and_its_noncentral_interval() -> None:
    values = np.array([[0.3, -0.1, 0.7, 0.2, 0.0, 1.0]])
    found = standardised_difference(suite(values))
    assert found is not None
    assert found.estimate == pytest.approx(values.mean() / values.std(ddof=1))
    t = found.estimate * math.sqrt(6)
    assert stats.nct.sf(t, 5, found.low * math.sqrt(6)) == pytest.approx(0.025, rel=1e-4)
    assert stats.nct.cdf(t, 5, found.high * math.sqrt(6)) == pytest.approx(0.025, rel=1e-4)
    assert standardised_difference(suite(np.full((2, 5), 0.2))) is None
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(400):
        one = standardised_difference(suite(rng.normal(0.5, 1.0, size=(1, 40))))
        assert one is not None
        inside += one.low < 0.5 < one.high
    assert inside / 400 == pytest.approx(0.95, abs=0.033)


def test_standardised_difference_of_almost_equal_differences_comes_to_an_end() -> None:
    values = np.array([[1.0, 1.0, 1.0, 1.0, 0.99999]])
    found, negative = standardised_difference(suite(values)), standardised_difference(suite(-values))
    assert found is not None and negative is not None
    assert (negative.low, negative.high) == pytest.approx((-found.high, -found.low))
    # noncentral t of a like size, which still ends: ratios to t are the same
    assert found.low / found.estimate == pytest.approx(special.nctdtrinc(4, 0.975, 900.0) / 900.0, rel=1e-3)
    assert found.high / found.estimate == pytest.approx(special.nctdtrinc(4, 0.025, 900.0) / 900.0, rel=1e-3)


def test_matched_odds_have_the_exact_binomial_interval() -> None:
    found = matched_odds(15, 5)
    assert found is not None and found.estimate == pytest.approx(3.0)
    share = stats.binomtest(15, 20).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((share.low / (1 - share.low), share.high / (1 - share.high)))
    only = matched_odds(4, 0)
    assert only is not None and only.estimate == math.inf and only.high == math.inf and only.low < 1
    assert matched_odds(0, 0) is None


def test_bootstrap_over_examples_is_that_of_scipy() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.2, 1.0, size=60)
    found = hierarchical_bootstrap({"s": suite(values[None])}, {"s": 1.0}, resamples=20_000)
    other = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.02)


def test_bootstrap_of_few_examples_is_no_surer_than_their_signs() -> None:
    for values in ([[0.5]], [[0.5, 0.2]], [[0.5, 0.2], [0.3, 0.3], [0.2, 0.1]]):
        found = hierarchical_bootstrap({"s": suite(np.array(values))}, {"s": 1.0})
        assert found.p == 2.0 ** (1 - len(values[0]))


def test_bootstrap_has_the_variance_of_the_sample() -> None:
    """With 3 runs a plain bootstrap would have two thirds of their variance."""
    runs = np.array([[0.0], [0.3], [0.9]]) + np.zeros((1, 50))
    found = hierarchical_bootstrap({"s": suite(runs)}, {"s": 1.0}, level=0.6827, resamples=40_000)
    assert found.low < found.estimate < found.high
    rng = np.random.default_rng(6)
    draws = rng.multinomial(2, np.full(3, 1 / 3), size=40_000) / 2 @ runs[:, 0]
    assert draws.var() == pytest.approx(runs[:, 0].var(ddof=1) / 3, rel=0.03)


def crossed(rng: np.random.Generator, shift: float, seeds: int, spread: tuple[float, float, float]) -> PairedSuite:
    """Differences of ``seeds`` x 60 with the given sd of seeds, of examples and of both together."""
    seed, example, both = spread
    return suite(
        shift
        + seed * rng.normal(size=(seeds, 1))
        + example * rng.normal(size=(1, 60))
        + both * rng.normal(size=(seeds, 60))
    )


@pytest.mark.parametrize("spread", [(0.3, 1.0, 0.1), (0.0, 1.0, 0.0), (0.5, 0.2, 0.1)])
def test_hierarchical_bootstrap_rejects_at_its_rate_with_enough_seeds(spread: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    rejected = 0
    for trial in range(400):
        one = crossed(rng, 0.0, 2 * ENOUGH_SEEDS, spread)
        rejected += hierarchical_bootstrap({"s": one}, {"s": 1.0}, resamples=300, seed=trial).p < 0.05
    # standard error 1 point; a percentile interval of 18 seeds is 3 % too narrow
    assert rejected / 400 == pytest.approx(0.05, abs=0.03)


def test_hierarchical_bootstrap_is_wide_where_seeds_and_examples_vary_together() -> None:
    rng = np.random.default_rng(8)
    rejected = sum(
        hierarchical_bootstrap({"s": crossed(rng, 0.0, 18, (0.0, 0.0, 1.0))}, {"s": 1.0}, resamples=300).p < 0.05
        for _ in range(200)
    )
    assert rejected / 200 < 0.03


def test_power_is_that_of_statsmodels() -> None:
    for size, examples, alpha in ((0.3, 50, 0.05), (0.8, 12, 0.01), (0.05, 2000, 0.05), (1.5, 6, 0.001)):
        expected = TTestPower().power(size, examples, alpha)
        assert power_of(size, 1 / math.sqrt(examples), examples - 1, alpha=alpha) == pytest.approx(expected, abs=1e-4)
    assert power_of(0.0, 1.0, 20, alpha=0.05) == pytest.approx(0.05)
    stderr = 0.1
    detectable = minimum_detectable_difference(stderr, 40, alpha=0.05)
    assert power_of(detectable, stderr, 40, alpha=0.05) == pytest.approx(0.8, abs=0.005)


def test_components_give_the_variance_of_the_test_they_come_from() -> None:
    rng = np.random.default_rng(9)
    one = run_test(crossed(rng, 0.1, 12, (0.5, 1.0, 0.3)))
    parts = components(one)
    assert math.sqrt(parts.variance(12)) == pytest.approx(one.stderr)
    assert parts.df(12) == pytest.approx(one.df, rel=1e-6)
    alone = run_test(crossed(rng, 0.1, 1, (0.0, 1.0, 0.3)))
    assert math.sqrt(components(alone).variance(1)) == pytest.approx(alone.stderr)


def test_seeds_and_examples_needed() -> None:
    # one seed's sd 1, nothing else: the t-test of n runs; 0.5 at 80 % power takes 34 (Cohen 1988, table 2.4.1)
    alone = Components(seed=1.0, example=0.0, residual=0.0, units=100)
    assert seeds_needed(0.5, alone, alpha=0.05) == 34
    assert TTestPower().solve_power(0.5, power=0.8, alpha=0.05) == pytest.approx(33.4, abs=0.1)
    assert examples_needed(0.5, alone, 3, alpha=0.05) is None  # more examples say nothing of seeds
    examples = Components(seed=0.0, example=1.0 / 100, residual=0.0, units=100)
    assert examples_needed(0.5, examples, 1, alpha=0.05) == 34
    assert seeds_needed(0.1, examples, alpha=0.05) is None  # nor seeds of examples
    assert seeds_needed(0.0, alone, alpha=0.05) is None


@pytest.mark.parametrize(
    ("seeds", "spread"), [(1, (0.0, 1.0, 0.0)), (12, (0.5, 1.0, 0.3)), (12, (0.2, 0.3, 1.0)), (20, (1.0, 0.5, 0.0))]
)
def test_tests_find_a_known_difference_with_the_computed_power(seeds: int, spread: tuple[float, float, float]) -> None:
    seed, example, both = spread
    truth = Components(seed**2, example**2 / 60, both**2 / 60, 60)
    if seeds == 1:
        truth = Components(0.0, (example**2 + both**2) / 60, 0.0, 60)
    stderr = math.sqrt(truth.variance(seeds))
    difference = 2.5 * stderr
    expected = power_of(difference, stderr, truth.df(seeds), alpha=0.05)
    rng = np.random.default_rng(10)
    found = sum(run_test(crossed(rng, difference, seeds, spread)).p < 0.05 for _ in range(1500)) / 1500
    level = sum(run_test(crossed(rng, 0.0, seeds, spread)).p < 0.05 for _ in range(1500)) / 1500
    assert found == pytest.approx(expected, abs=0.04)  # standard error 1.3 points
    assert level == pytest.approx(0.05, abs=0.018)  # 0.6 points

"""Statistics against hand-worked cases, loop-form references and their own stated rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ablate.results import statistics
from ablate.results.statistics import PairedSuite, holm, mean_sd, paired_test, plain_mean, sign_flip_null


def suite(rows: list[list[float]], clusters: list[int] | None = None) -> PairedSuite:
    difference_SE = np.array(rows, dtype=float)
    examples = difference_SE.shape[1]
    cluster_E = np.arange(examples) if clusters is None else np.array(clusters)
    return PairedSuite(difference_SE, np.full(examples, 1 / examples), cluster_E)


def run_test(one: PairedSuite, seed: int = 0) -> statistics.PairedTest:
    null = sign_flip_null(one, np.random.default_rng(seed))
    return paired_test({"s": one}, {"s": 1.0}, {"s": null})


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd([2.0, 4.0, 9.0]) == (5.0, pytest.approx(math.sqrt(26 / 2)))
    assert mean_sd([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="undefined"):
        mean_sd([])


def test_no_partial_means() -> None:
    assert plain_mean([0.2, 0.4]) == pytest.approx(0.3)
    assert plain_mean([0.2, None]) is None
    assert plain_mean([]) is None


def test_holm_by_hand_and_against_statsmodels() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        p = rng.random(count) ** 3
        assert holm(list(p)) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([]) == []


def test_sign_flip_approaches_exact_enumeration() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        one = suite([list(rng.normal(0.4, 1.0, size=10))])
        sums = one.difference_SE[0] / 10
        observed = abs(sums.sum())
        flipped = [abs(float(np.dot(signs, sums))) for signs in itertools.product((-1, 1), repeat=10)]
        exact = np.mean([value >= observed - 1e-12 for value in flipped])
        assert run_test(one).p == pytest.approx(exact, abs=0.02)


def test_sign_flip_by_hand() -> None:
    # three improved examples of three: 2 of the 8 sign patterns are as extreme
    assert run_test(suite([[1.0, 1.0, 1.0]])).p == pytest.approx(0.25, abs=0.02)
    # nothing differs
    assert run_test(suite([[0.0, 0.0, 0.0]])).p == 1.0
    # nine examples that share one passage are one unit: nothing can be shown
    assert run_test(suite([[1.0] * 9], [0] * 9)).p == 1.0


def reference_crossed(difference_SE: np.ndarray) -> tuple[float, float]:
    """Variance of the grand mean and Satterthwaite df, by loops over the sums of squares of a crossed design."""
    seeds, examples = difference_SE.shape
    grand = sum(difference_SE[s][e] for s in range(seeds) for e in range(examples)) / (seeds * examples)
    seed_means = [sum(difference_SE[s]) / examples for s in range(seeds)]
    example_means = [sum(difference_SE[s][e] for s in range(seeds)) / seeds for e in range(examples)]
    ms_seed = examples * sum((m - grand) ** 2 for m in seed_means) / (seeds - 1)
    ms_example = seeds * sum((m - grand) ** 2 for m in example_means) / (examples - 1)
    residual = sum(
        (difference_SE[s][e] - seed_means[s] - example_means[e] + grand) ** 2
        for s in range(seeds)
        for e in range(examples)
    )
    ms_residual = residual / ((seeds - 1) * (examples - 1))
    total = seeds * examples
    variance = max(ms_seed + ms_example - ms_residual, ms_seed, ms_example) / total
    df = variance**2 / ((ms_seed / total) ** 2 / (seeds - 1) + (ms_example / total) ** 2 / (examples - 1))
    return variance, df


def test_crossed_variance_is_that_of_the_sums_of_squares() -> None:
    rng = np.random.default_rng(2)
    for seeds, examples in ((2, 5), (3, 20), (5, 7)):
        noise = rng.normal(size=(seeds, examples)) + rng.normal(size=(seeds, 1)) + rng.normal(size=(1, examples))
        variance, df = reference_crossed(noise)
        found = run_test(suite(noise.tolist()))
        assert found.stderr**2 == pytest.approx(variance)
        assert found.df == pytest.approx(df)
        student = 2 * stats.t.sf(abs(noise.mean()) / math.sqrt(variance), df)
        assert found.p == pytest.approx(max(student, 2.0 ** (1 - examples)))


def test_one_seed_has_the_standard_error_of_the_paired_t_test() -> None:
    values = [0.3, -0.1, 0.7, 0.2, 0.0, 1.0]
    found = run_test(suite([values]))
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(6))
    assert found.df == pytest.approx(5)


def test_clusters_of_equal_examples_count_once() -> None:
    # each of four values four times in a cluster of its own carries what the four values carry
    values = [0.5, -0.2, 0.4, 0.1]
    repeated = suite([[value for value in values for _ in range(4)]], [index for index in range(4) for _ in range(4)])
    assert run_test(repeated).stderr == pytest.approx(run_test(suite([values])).stderr)
    assert run_test(repeated).units == 4


def test_average_of_suites_adds_variances() -> None:
    rng = np.random.default_rng(3)
    first, second = suite([list(rng.normal(size=30))]), suite([list(rng.normal(size=50))])
    nulls = {name: sign_flip_null(one, rng) for name, one in (("a", first), ("b", second))}
    both = paired_test({"a": first, "b": second}, {"a": 0.5, "b": 0.5}, nulls)
    expected = (run_test(first).stderr ** 2 + run_test(second).stderr ** 2) / 4
    assert both.stderr**2 == pytest.approx(expected)
    assert both.estimate == pytest.approx((first.difference_SE.mean() + second.difference_SE.mean()) / 2)


def test_few_units_are_never_significant_however_equal_the_seeds() -> None:
    assert run_test(suite([[1.0], [1.0], [1.0]])).p == 1.0
    assert run_test(suite([[1.0, 1.0]] * 3)).p == 0.5


def rejection_rate(shift: float, seeds: int, *, clustered: bool, trials: int, seed_sd: float = 0.0) -> float:
    """Share of simulated comparisons of accuracy with p < .05; examples are of different difficulty."""
    rng = np.random.default_rng(seeds * 100 + clustered)
    rejected = 0
    for _ in range(trials):
        level_E = rng.uniform(0.2, 0.8, size=80)
        level_SE = level_E + shift + seed_sd * rng.normal(size=(seeds, 1))
        ours, theirs = rng.random((seeds, 80)) < level_SE, rng.random(80) < level_E
        if clustered:  # three questions of four about the same passage are right or wrong together
            for place in (1, 2):
                ours[:, place::4], theirs[place::4] = ours[:, ::4], theirs[::4]
        groups = np.repeat(np.arange(20), 4) if clustered else np.arange(80)
        one = PairedSuite(ours.astype(float) - theirs, np.full(80, 1 / 80), groups)
        nulls = {"s": sign_flip_null(one, rng, resamples=499)} if seeds == 1 else {}
        rejected += paired_test({"s": one}, {"s": 1.0}, nulls).p < 0.05
    return rejected / trials


@pytest.mark.parametrize(("seeds", "clustered"), [(1, False), (1, True)])
def test_rejects_at_its_rate_without_a_difference(seeds: int, clustered: bool) -> None:
    # 1,000 trials: standard error 0.7 points
    assert rejection_rate(0.0, seeds, clustered=clustered, trials=1000) == pytest.approx(0.05, abs=0.021)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.0), (3, 0.05), (5, 0.05)])
def test_rejects_at_most_at_its_rate_over_seeds(seeds: int, seed_sd: float) -> None:
    rate = rejection_rate(0.0, seeds, clustered=False, trials=1000, seed_sd=seed_sd)
    assert 0.01 <= rate <= 0.071


def test_ignoring_clusters_would_reject_too_often() -> None:
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(300):
        answers = np.repeat(rng.random((2, 20)) < 0.5, 4, axis=1).astype(float)
        one = suite([list(answers[0] - answers[1])])
        rejected += paired_test({"s": one}, {"s": 1.0}, {"s": sign_flip_null(one, rng, resamples=499)}).p < 0.05
    assert rejected / 300 > 0.15


def test_finds_a_difference_that_is_there() -> None:
    assert rejection_rate(0.25, 1, clustered=False, trials=200) > 0.8
    assert rejection_rate(0.25, 3, clustered=False, trials=200) > 0.9


def test_detectable_difference_is_found_at_its_power() -> None:
    rng = np.random.default_rng(11)
    sd, examples = 1.0, 60
    difference = statistics.minimum_detectable_difference(sd / math.sqrt(examples), examples - 1, alpha=0.05)
    # (1.96 + 0.84) standard errors, a little more at 59 degrees of freedom
    assert difference == pytest.approx(2.802 * sd / math.sqrt(examples), rel=0.03)
    hits = 0
    for _ in range(600):
        one = suite([list(rng.normal(difference, sd, size=examples))])
        hits += paired_test({"s": one}, {"s": 1.0}, {"s": sign_flip_null(one, rng, resamples=499)}).p <= 0.05
    assert hits / 600 == pytest.approx(0.8, abs=0.06)


def test_rows_match_where_the_named_axes_agree() -> None:
    rows = [
        {"dataset": "hh", "algorithm": "dpo", "init": None},
        {"dataset": "hh", "algorithm": "ppo", "init": "small"},
        {"dataset": "hh", "algorithm": "ppo", "init": "large"},
        {"dataset": "uf", "algorithm": "ppo", "init": "small"},
    ]
    assert statistics.match_rows(rows, "algorithm", ("ppo", "dpo"), ["dataset"]) == [(1, 0), (2, 0)]
    assert statistics.match_rows(rows, "algorithm", ("ppo", "dpo"), ["dataset", "init"]) == []
    assert statistics.match_rows(rows, "init", ("large", "small"), ["dataset", "algorithm"]) == [(2, 1)]

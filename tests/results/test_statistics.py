"""Statistics against hand-worked cases, loop-form references and their own stated rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ablate.results.statistics.corrections import holm
from ablate.results.statistics.paired import PairedSuite, PairedTest, mean_sd, paired_test, pool_seeds
from ablate.results.statistics.permutation import sign_flip_p
from ablate.results.statistics.power import minimum_detectable_difference
from ablate.results.tables import rows as table_rows


def suite(rows: list[list[float]], clusters: list[int] | None = None) -> PairedSuite:
    difference_SE = np.array(rows, dtype=float)
    examples = difference_SE.shape[1]
    cluster_E = np.arange(examples) if clusters is None else np.array(clusters)
    return PairedSuite(difference_SE, np.full(examples, 1 / examples), cluster_E)


def run_test(one: PairedSuite) -> PairedTest:
    return paired_test({"s": one}, {"s": 1.0})


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd([2.0, 4.0, 9.0]) == (5.0, pytest.approx(math.sqrt(26 / 2)))
    assert mean_sd([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="undefined"):
        mean_sd([])


def test_holm_by_hand_and_against_statsmodels() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        p = rng.random(count) ** 3
        assert holm(list(p)) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([]) == []


def enumerated_p(sums: np.ndarray) -> float:
    """The sign-flip p by going through every pattern of signs."""
    observed = abs(sums.sum())
    flipped = np.array([np.dot(signs, sums) for signs in itertools.product((-1, 1), repeat=sums.size)])
    return float(np.mean(np.abs(flipped) >= observed - 1e-9))


def test_sign_flip_p_is_that_of_all_sign_patterns() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 6, 12, 14):
        answers = rng.integers(-1, 2, size=count) / 300  # right or wrong: multiples of a unit, with ties
        weighted = np.concatenate([answers / 6, rng.integers(-1, 2, size=3) / 3600])  # a category of two suites
        graded = rng.integers(-8, 9, size=count) * 0.25 / 40
        for sums in (answers, weighted[-14:], graded):
            assert sign_flip_p(sums) == pytest.approx(enumerated_p(sums), rel=1e-9)
        continuous = rng.normal(0.3, 1.0, size=count)
        # rounded to a thousandth of the standard deviation: a pattern may change sides
        assert sign_flip_p(continuous) == pytest.approx(enumerated_p(continuous), abs=3 / 2**count + 1e-3)


def test_sign_flip_p_is_exact_in_the_far_tail() -> None:
    # 100 changed answers, 85 of them better: a binomial tail, far below what draws could show
    sums = np.array([1.0] * 85 + [-1.0] * 15 + [0.0] * 400) / 500
    exact = 2 * stats.binom.sf(84, 100, 0.5)
    assert sign_flip_p(sums) == pytest.approx(exact, rel=1e-3)
    assert exact < 1e-12
    assert 0 < sign_flip_p(np.ones(2000)) <= 1e-13  # farther than the transform can tell
    rng = np.random.default_rng(5)
    smooth = rng.normal(0.06, 1.0, size=2000)
    z = smooth.sum() / math.sqrt((smooth**2).sum())
    assert sign_flip_p(smooth) == pytest.approx(2 * stats.norm.sf(z), rel=0.03)


def test_sign_flip_by_hand() -> None:
    # three improved examples of three: 2 of the 8 sign patterns are as extreme
    assert run_test(suite([[1.0, 1.0, 1.0]])).p == pytest.approx(0.25)
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
        df = min(df, seeds - 1)  # alone, a variance of few seeds has no more degrees of freedom than they
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
    both = paired_test({"a": first, "b": second}, {"a": 0.5, "b": 0.5})
    expected = (run_test(first).stderr ** 2 + run_test(second).stderr ** 2) / 4
    assert both.stderr**2 == pytest.approx(expected)
    assert both.estimate == pytest.approx((first.difference_SE.mean() + second.difference_SE.mean()) / 2)


def test_few_units_are_never_significant_however_equal_the_seeds() -> None:
    assert run_test(suite([[1.0], [1.0], [1.0]])).p == 1.0
    assert run_test(suite([[1.0, 1.0]] * 3)).p == 0.5


def simulate(
    rng: np.random.Generator, shift: float, seeds: int, *, clustered: bool, seed_sd: float = 0.0
) -> PairedTest:
    """A comparison of accuracy with a baseline; examples are of different difficulty."""
    level_E = rng.uniform(0.2, 0.8, size=80)
    level_SE = level_E + shift + seed_sd * rng.normal(size=(seeds, 1))
    ours, theirs = rng.random((seeds, 80)) < level_SE, rng.random(80) < level_E
    if clustered:  # three questions of four about the same passage are right or wrong together
        for place in (1, 2):
            ours[:, place::4], theirs[place::4] = ours[:, ::4], theirs[::4]
    groups = np.repeat(np.arange(20), 4) if clustered else np.arange(80)
    return run_test(PairedSuite(ours.astype(float) - theirs, np.full(80, 1 / 80), groups))


def rejection_rate(shift: float, seeds: int, *, clustered: bool, trials: int) -> float:
    """Share of simulated comparisons with p < .05."""
    rng = np.random.default_rng(seeds * 100 + clustered)
    return sum(simulate(rng, shift, seeds, clustered=clustered).p < 0.05 for _ in range(trials)) / trials


@pytest.mark.parametrize(("seeds", "clustered"), [(1, False), (1, True)])
def test_rejects_at_its_rate_without_a_difference(seeds: int, clustered: bool) -> None:
    # 1,000 trials: standard error 0.7 points
    assert rejection_rate(0.0, seeds, clustered=clustered, trials=1000) == pytest.approx(0.05, abs=0.021)


def column_tests(rng: np.random.Generator, spreads: list[float], seeds: int = 3) -> list[PairedTest]:
    """Null tests of one column whose rows have these standard deviations between seeds, pooled as a table pools."""
    tests = []
    for spread in spreads:
        seed_S1, example_E = spread * rng.normal(size=(seeds, 1)), 0.2 * rng.normal(size=200)
        difference_SE = seed_S1 + example_E + 0.2 * rng.normal(size=(seeds, 200))
        tests.append(run_test(PairedSuite(difference_SE, np.full(200, 1 / 200), np.arange(200))))
    return pool_seeds(tests, [("cell", str(index % 2)) for index in range(len(tests))])


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_over_seeds_rejects_at_most_at_its_rate_also_at_the_levels_of_a_corrected_table(
    spread: float, rows: int
) -> None:
    rng = np.random.default_rng(17)
    tests = [test for _ in range(8000 // rows) for test in column_tests(rng, [spread] * rows)]
    p_T = np.array([test.p for test in tests])
    assert (p_T < 0.05).mean() <= 0.06
    assert (p_T < 0.05 / 20).mean() <= 2 * 0.05 / 20
    assert (p_T < 0.05 / 160).sum() <= 10  # 2.5 expected; the variance of single rows alone gave up to 100


def test_a_table_of_null_tests_keeps_its_family_wise_rate() -> None:
    # 12 rows of two methods, the second with twice the spread, 8 columns: at most one table of twenty has any mark
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        columns = [column_tests(rng, [0.02, 0.04] * 6) for _ in range(8)]
        wrong += min(holm([test.p for column in columns for test in column])) < 0.05
    assert wrong / 200 <= 0.10  # 0.05, standard error 0.015, and what unequal methods add


def test_pooled_variance_by_hand() -> None:
    # runs .1 and .3 of one row, .2 and .2 of another: variances .02 and 0, pooled .01 with 2 degrees of freedom
    first = suite([[0.1] * 50, [0.3] * 50])
    second = suite([[0.2] * 50, [0.2] * 50])
    one, other = pool_seeds([run_test(first), run_test(second)], [("cell", "dpo"), ("cell", "dpo")])
    assert one.stderr == pytest.approx(math.sqrt(0.02 / 2))  # its own, the larger
    assert other.stderr == pytest.approx(math.sqrt(0.01 / 2))
    assert (one.df, other.df) == (2, 2)
    alone = pool_seeds([run_test(second)], [("cell", "dpo")])[0]
    assert alone.df == 1 and alone.stderr == pytest.approx(0.0)
    # differences are no cells: their variance is not pooled with theirs
    apart = pool_seeds([run_test(first), run_test(second)], [("cell", "dpo"), ("delta", "ppo dpo")])
    assert apart[1].stderr == pytest.approx(0.0)


def test_ignoring_clusters_would_reject_too_often() -> None:
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(300):
        answers = np.repeat(rng.random((2, 20)) < 0.5, 4, axis=1).astype(float)
        one = suite([list(answers[0] - answers[1])])
        rejected += run_test(one).p < 0.05
    assert rejected / 300 > 0.15


def test_finds_a_difference_that_is_there() -> None:
    assert rejection_rate(0.25, 1, clustered=False, trials=200) > 0.8
    rng = np.random.default_rng(31)
    found = 0
    for _ in range(50):
        rows = [simulate(rng, 0.25, 3, clustered=False) for _ in range(4)]
        found += sum(test.p < 0.05 for test in pool_seeds(rows, [("cell", "dpo")] * 4))
    assert found / 200 > 0.9


def test_detectable_difference_is_found_at_its_power() -> None:
    rng = np.random.default_rng(11)
    sd, examples = 1.0, 60
    difference = minimum_detectable_difference(sd / math.sqrt(examples), examples - 1, alpha=0.05)
    # (1.96 + 0.84) standard errors, a little more at 59 degrees of freedom
    assert difference == pytest.approx(2.802 * sd / math.sqrt(examples), rel=0.03)
    hits = 0
    for _ in range(600):
        one = suite([list(rng.normal(difference, sd, size=examples))])
        hits += run_test(one).p <= 0.05
    assert hits / 600 == pytest.approx(0.8, abs=0.06)


def test_rows_match_where_the_named_axes_agree() -> None:
    rows = [
        {"dataset": "hh", "algorithm": "dpo", "init": None},
        {"dataset": "hh", "algorithm": "ppo", "init": "small"},
        {"dataset": "hh", "algorithm": "ppo", "init": "large"},
        {"dataset": "uf", "algorithm": "ppo", "init": "small"},
    ]
    assert table_rows.match_rows(rows, "algorithm", ("ppo", "dpo"), ["dataset"]) == [(1, 0), (2, 0)]
    assert table_rows.match_rows(rows, "algorithm", ("ppo", "dpo"), ["dataset", "init"]) == []
    assert table_rows.match_rows(rows, "init", ("large", "small"), ["dataset", "algorithm"]) == [(2, 1)]

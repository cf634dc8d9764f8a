"""Standard errors of means over examples: clustered, by hand and by simulation; pass@k's over problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from ablate.evaluation.graders.coding import pass_at_k
from ablate.evaluation.grading import Example, mean_metric


def stderr(values: list[float], clusters: list[str] | None = None) -> float | None:
    names = clusters or [None] * len(values)
    rows = [
        Example(f"e{i}", 0, "t", "m", value, name) for i, (value, name) in enumerate(zip(values, names, strict=True))
    ]
    return mean_metric("t", "m", rows).stderr


def test_clustered_standard_error_by_hand() -> None:
    # two passages, right 2 of 2 and 0 of 2: mean .5, sums of deviations 1 and -1: sqrt(2 * 2) / 4
    assert stderr([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"]) == pytest.approx(0.5)
    assert stderr([1.0, 1.0, 0.0, 0.0], ["a"] * 4) is None
    assert stderr([1.0]) is None


def test_clustered_standard_error_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(2)
    values, groups = rng.random(40), np.sort(rng.integers(0, 9, size=40))
    fit = OLS(values, np.ones(40)).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True})
    # statsmodels' correction is C / (C - 1) * (n - 1) / (n - k), k = 1
    assert stderr(list(values), [str(group) for group in groups]) == pytest.approx(float(fit.bse[0]))
    assert stderr(list(values)) == pytest.approx(values.std(ddof=1) / math.sqrt(40))


def test_samples_of_an_example_are_averaged_first() -> None:
    rows = [
        Example(f"e{i}", sample, "t", "m", float(i), "c" if i < 2 else None) for i in range(4) for sample in range(3)
    ]
    found = mean_metric("t", "m", rows)
    # deviations -1.5 -.5 (together -2) .5 1.5: sqrt(3 / 2 * (4 + .25 + 2.25)) / 4
    assert found.n == 4 and found.stderr == pytest.approx(math.sqrt(3 / 2 * 6.5) / 4)


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 5)
    names = [str(group) for group in groups]
    covered = plain = 0
    for _ in range(600):
        values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
        clustered, alone = stderr(list(values), names), stderr(list(values))
        assert clustered is not None and alone is not None
        covered += abs(values.mean()) < stats.t.ppf(0.975, 39) * clustered
        plain += abs(values.mean()) < 1.96 * alone
    assert covered / 600 == pytest.approx(0.95, abs=0.027)  # three standard errors
    assert plain / 600 < 0.75


@pytest.mark.parametrize("k", [1, 5])
def test_the_error_of_pass_at_k_covers_problems_and_samples(k: int) -> None:
    """Problems are drawn, then ten programs for each: the error over problems has both parts of the variance."""
    rng = np.random.default_rng(4)
    draws = rng.beta(0.5, 1.0, size=200_000)
    truth = float(np.mean(1 - (1 - draws) ** k))
    estimates, errors = [], []
    for _ in range(400):
        passed = rng.binomial(10, rng.beta(0.5, 1.0, size=60))
        values = [pass_at_k(10, int(count), k) for count in passed]
        estimates.append(sum(values) / 60)
        errors.append(stderr(values) or math.nan)
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / 20)  # unbiased
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.12)

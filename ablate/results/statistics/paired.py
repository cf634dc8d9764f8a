"""The statistics of a table: category scores, spread over seeds, paired tests, correction, detectable difference.

Unit of analysis. A comparison of two models on a suite is made of per-example differences d[s, e] (seed s, example e;
the samples drawn for an example are averaged first), so that what is hard for both models cancels. Examples that
share a cluster (a passage, a dialogue) vary together and count as one unit.

* One seed: exact sign-flip permutation test over clusters (:mod:`ablate.results.statistics.permutation`). The claim
  holds for this pair of models.
* Several seeds: seeds are the upper level. d[s, e] = mu + a[s] + b[e] + residual, crossed and random; the variance of
  the mean is V_seed + V_example - V_residual, tested with Student's t at Satterthwaite's degrees of freedom (the
  t form of Clark's 1973 quasi-F). The claim holds for the method, over seeds. The mean over seeds alone would treat the
  seeds at hand as all there are. Runs that start from different base or SFT models are averaged within each of
  these first: what a base model does to all runs that start from it is no evidence over seeds.

Three seeds say little about a variance: where it comes out small by chance, t is large and so are the degrees of
freedom, and a corrected test rejects many times too often. So the variance between seeds is pooled over the rows that
a table tests alike (:func:`pool_seeds`).

A score that is a ratio of sums over examples (XSTest's refusal F1) enters as its linearisation around its value, whose
mean over examples is the score (delta method): the tests of such a column hold to first order.

A column that averages several suites is tested as that weighted mean; suites have no examples in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from ablate.results.statistics.permutation import Floats, sign_flip_p

ENOUGH_DF = 8
"""Degrees of freedom from which an estimate of the variance between seeds is trusted at small levels: with eight, tests
at 0.05 / 160 reject less than twice as often as they should, with two up to forty times (simulated)."""
_TIE = 1e-12


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n - 1); the latter is None below two values."""
    if not values:
        raise ValueError("the mean of nothing is undefined")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class PairedSuite:
    """Per-example differences of one suite.

    ``difference_SE``: seeds x examples. ``weight_E`` sums to 1: the suite's difference is its weighted mean.
    ``cluster_E``: an integer for each example.
    """

    difference_SE: Floats
    weight_E: Floats
    cluster_E: npt.NDArray[np.int64]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.difference_SE.shape[0])

    def averaged(self, unit_S: Sequence[int]) -> PairedSuite:
        """Return the suite with the runs of one unit averaged; units are numbered from 0."""
        rows = np.array(unit_S)
        means = [self.difference_SE[rows == unit].mean(axis=0) for unit in range(int(rows.max()) + 1)]
        return PairedSuite(np.stack(means), self.weight_E, self.cluster_E)

    @property
    def mean_S(self) -> Floats:
        """Weighted mean difference of every seed."""
        means: Floats = self.difference_SE @ self.weight_E
        return means

    @property
    def total_SC(self) -> Floats:
        """Weighted sum of the differences of every seed and cluster."""
        clusters = int(self.cluster_E.max()) + 1
        totals = np.zeros((self.seeds, clusters))
        for seed in range(self.seeds):
            totals[seed] = np.bincount(
                self.cluster_E, weights=self.difference_SE[seed] * self.weight_E, minlength=clusters
            )
        return totals

    @property
    def share_C(self) -> Floats:
        """Summed weight of every cluster."""
        return np.bincount(self.cluster_E, weights=self.weight_E).astype(np.float64)


@dataclass(frozen=True)
class Within:
    """The variance of a mean difference that does not come from seeds: over examples, and the residual's share of it.

    ``squares`` is the sum over suites of variance^2 / degrees of freedom.
    """

    example: float
    residual: float
    squares: float


@dataclass(frozen=True)
class PairedTest:
    """Outcome of a paired test: two-sided p; ``stderr`` and ``df`` are those of ``estimate``.

    ``spread`` is the variance between runs of different seeds, 0 with one.
    """

    estimate: float
    stderr: float
    df: float
    p: float
    seeds: int
    units: int
    spread: float
    within: Within

    @property
    def method(self) -> str:
        """How it was tested: over examples alone (``sign-flip``), or over seeds and examples (``seeds``)."""
        return "seeds" if self.seeds > 1 else "sign-flip"


@dataclass(frozen=True)
class Variance:
    """Estimated variance of one suite's mean difference: over examples (clusters) and from the residual."""

    example: float
    residual: float
    units: int


def suite_variance(suite: PairedSuite) -> Variance:
    """Return the cluster-robust variances of a suite's mean difference (C / (C - 1) correction)."""
    total_SC, share_C = suite.total_SC, suite.share_C
    units = int(np.count_nonzero(share_C))
    if units < 2:
        return Variance(0.0, 0.0, units)
    correction = units / (units - 1)
    residual_SC = total_SC - np.outer(suite.mean_S, share_C)
    mean_C = residual_SC.mean(axis=0)
    example = correction * float((mean_C**2).sum())
    seeds = suite.seeds
    if seeds < 2:
        return Variance(example, 0.0, units)
    interaction_SC = residual_SC - mean_C
    residual = correction * float((interaction_SC**2).sum()) / (seeds * (seeds - 1))
    return Variance(example, residual, units)


def paired_test(suites: Mapping[str, PairedSuite], weights: Mapping[str, float]) -> PairedTest:
    """Test a weighted mean of suites' differences against zero; which test is said in this module's head."""
    chosen = [(weight, suites[name]) for name, weight in weights.items()]
    mean_S = np.sum([weight * suite.mean_S for weight, suite in chosen], axis=0)
    parts = [(weight, suite_variance(suite)) for weight, suite in chosen]
    within = Within(
        example=sum(weight**2 * part.example for weight, part in parts),
        residual=sum(weight**2 * part.residual for weight, part in parts),
        squares=sum((weight**2 * part.example) ** 2 / (part.units - 1) for weight, part in parts if part.units > 1),
    )
    units, seeds = sum(part.units for _, part in parts), int(mean_S.size)
    if seeds > 1:
        spread = float(mean_S.var(ddof=1))
        return _over_seeds(float(mean_S.mean()), within, seeds, units, spread, (spread, seeds - 1))
    stderr, df = _satterthwaite(within, 0.0, 0)
    p = sign_flip_p(np.concatenate([weight * suite.total_SC[0] for weight, suite in chosen]))
    return PairedTest(float(mean_S[0]), stderr, df, p, 1, units, 0.0, within)


def pool_seeds(tests: Sequence[PairedTest], groups: Sequence[tuple[str, str]]) -> list[PairedTest]:
    """Return the tests of one column with the variance between seeds pooled over those of the same group.

    A group is a kind of row (cells, differences) and its method. Where the runs of a method leave fewer than
    ``ENOUGH_DF`` degrees of freedom, the variance is pooled over all rows of the kind, and where even those leave
    fewer, t has no more of them. A test's own variance is kept where it is the larger one: methods are not equally
    stable.
    """
    pools: dict[tuple[str, ...], list[PairedTest]] = {}
    for test, group in zip(tests, groups, strict=True):
        pools.setdefault(group, []).append(test)
        pools.setdefault(group[:1], []).append(test)
    pooled = []
    for test, group in zip(tests, groups, strict=True):
        if test.seeds > 1:
            spread, df = _pool(pools[group])
            if df < ENOUGH_DF:
                wider, df = _pool(pools[group[:1]])
                spread = max(spread, wider)
            test = assume_spread(test, max(spread, test.spread), df)
        pooled.append(test)
    return pooled


def _pool(tests: Sequence[PairedTest]) -> tuple[float, int]:
    """Mean variance between seeds, weighted by degrees of freedom, and their sum."""
    df = sum(test.seeds - 1 for test in tests)
    return (sum((test.seeds - 1) * test.spread for test in tests) / df if df else 0.0), df


def least_p(units: int) -> float:
    """Return the smallest p that ``units`` can show, however equal seeds are: all their signs agree by chance."""
    return min(1.0, 2.0 ** (1 - units)) if units < 64 else 0.0


def assume_spread(test: PairedTest, spread: float, df: int) -> PairedTest:
    """Return a test over several seeds with this variance between them, of so many degrees of freedom, for its own."""
    return _over_seeds(test.estimate, test.within, test.seeds, test.units, test.spread, (spread, df))


def _over_seeds(
    estimate: float, within: Within, seeds: int, units: int, spread: float, assumed: tuple[float, int]
) -> PairedTest:
    """Test an estimate whose variance between seeds is ``assumed``: a value and its degrees of freedom."""
    stderr, df = _satterthwaite(within, assumed[0] / seeds, assumed[1])
    p = max(_student_p(estimate, stderr, df), least_p(units))
    return PairedTest(estimate, stderr, df, p, seeds, units, spread, within)


def _satterthwaite(within: Within, seed: float, seed_df: int) -> tuple[float, float]:
    """Standard error of the mean over crossed seeds and examples, and its effective degrees of freedom."""
    # Sampling error can make the estimate smaller than one of its parts, which the true value never is.
    variance = max(seed + within.example - within.residual, seed, within.example)
    squares = within.squares + (seed**2 / seed_df if seed_df else 0.0)
    df = variance**2 / squares if squares > 0 else math.inf
    return math.sqrt(variance), min(df, seed_df) if 0 < seed_df < ENOUGH_DF else df


def _student_p(estimate: float, stderr: float, df: float) -> float:
    if stderr <= _TIE:
        return 1.0 if abs(estimate) <= _TIE else 0.0
    if not math.isfinite(df):
        return math.erfc(abs(estimate / stderr) / math.sqrt(2))
    return float(min(1.0, 2 * stdtr(df, -abs(estimate / stderr))))

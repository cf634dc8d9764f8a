"""The statistics of a table: category scores, spread over seeds, paired tests, correction, detectable difference.

Unit of analysis. A comparison of two models on a suite is made of per-example differences d[s, e] (seed s, example e;
the samples drawn for an example are averaged first), so that what is hard for both models cancels. Examples that
share a cluster (a passage, a dialogue) vary together and count as one unit.

* One seed: sign-flip permutation test over clusters. If the two models are exchangeable, each cluster's summed
  difference is as likely with either sign (Fisher 1935; Dror et al. 2018). The claim holds for this pair of models.
* Several seeds: seeds are the upper level. d[s, e] = mu + a[s] + b[e] + residual, crossed and random; the variance of
  the mean is V_seed + V_example - V_residual, tested with Student's t at Satterthwaite's degrees of freedom (the
  t form of Clark's 1973 quasi-F). The claim holds for the method, over seeds. The mean over seeds alone would treat the
  seeds at hand as all there are. Runs that start from different base or SFT models are averaged within each of
  these first: what a base model does to all runs that start from it is no evidence over seeds.

A score that is a ratio of sums over examples (XSTest's refusal F1) enters as its linearisation around its value, whose
mean over examples is the score (delta method): the tests of such a column hold to first order.

A column that averages several suites is tested as that weighted mean; suites have no examples in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 9_999
_TIE = 1e-12


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n - 1); the latter is None below two values."""
    if not values:
        raise ValueError("the mean of nothing is undefined")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def plain_mean(values: Sequence[float | None]) -> float | None:
    """Return the plain mean, or None when there is no value or any value is missing: no partial averages."""
    present = [value for value in values if value is not None]
    if not values or len(present) < len(values):
        return None
    return math.fsum(present) / len(present)


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
class PairedTest:
    """Outcome of a paired test: two-sided p; ``stderr`` and ``df`` are those of ``estimate``."""

    estimate: float
    stderr: float
    df: float
    p: float
    seeds: int
    units: int
    method: str


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


def sign_flip_null(suite: PairedSuite, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Draw ``resamples`` values of a suite's mean difference with the sign of every cluster's sum flipped at random.

    Seeds are averaged first. Clusters that sum to zero stay zero and are left out.
    """
    total_C = suite.total_SC.mean(axis=0)
    total_C = total_C[np.abs(total_C) > _TIE]
    null = np.zeros(resamples)
    for start in range(0, resamples, 1024):
        rows = min(1024, resamples - start)
        signs = rng.integers(0, 2, size=(rows, total_C.size), dtype=np.int8).astype(np.float32) * 2 - 1
        null[start : start + rows] = signs @ total_C.astype(np.float32)
    return null


def paired_test(
    suites: Mapping[str, PairedSuite],
    weights: Mapping[str, float],
    nulls: Mapping[str, Floats],
) -> PairedTest:
    """Test a weighted mean of suites' differences against zero; which test is said in this module's head.

    ``nulls`` holds :func:`sign_flip_null` of each suite (used with one seed only; computed once for all columns).
    """
    names = list(weights)
    seeds = suites[names[0]].seeds
    mean_S = np.sum([weights[name] * suites[name].mean_S for name in names], axis=0)
    estimate = float(mean_S.mean())
    parts = {name: suite_variance(suites[name]) for name in names}
    units = sum(part.units for part in parts.values())
    stderr, df = _satterthwaite(mean_S, [(weights[name], parts[name]) for name in names])
    if seeds > 1:
        # However equal the seeds are, n units can't show more than all their signs agreeing by chance.
        least = max((2.0 ** (1 - part.units) for part in parts.values() if part.units < 64), default=0.0)
        p = max(_student_p(estimate, stderr, df), min(1.0, least))
        return PairedTest(estimate, stderr, df, p, seeds, units, "seeds")
    null = np.sum([weights[name] * nulls[name] for name in names], axis=0)
    # The null is drawn in float32: allow its rounding, so that exact ties count against the difference.
    reached = np.abs(null) >= abs(estimate) - 1e-6 * max(1e-6, float(np.abs(null).max(initial=0.0)))
    p = (1 + int(reached.sum())) / (1 + null.size)
    return PairedTest(estimate, stderr, df, p, seeds, units, "sign-flip")


def _satterthwaite(mean_S: Floats, parts: Sequence[tuple[float, Variance]]) -> tuple[float, float]:
    """Standard error of the mean over crossed seeds and examples, and its effective degrees of freedom."""
    example = sum(weight**2 * part.example for weight, part in parts)
    residual = sum(weight**2 * part.residual for weight, part in parts)
    squares = sum((weight**2 * part.example) ** 2 / (part.units - 1) for weight, part in parts if part.units > 1)
    seeds = mean_S.size
    seed = float(mean_S.var(ddof=1)) / seeds if seeds > 1 else 0.0
    # Sampling error can make the estimate smaller than one of its parts, which the true value never is.
    variance = max(seed + example - residual, seed, example)
    if seeds > 1:
        squares += seed**2 / (seeds - 1)
    return math.sqrt(variance), (variance**2 / squares if squares > 0 else math.inf)


def _student_p(estimate: float, stderr: float, df: float) -> float:
    if stderr <= _TIE:
        return 1.0 if abs(estimate) <= _TIE else 0.0
    if not math.isfinite(df):
        return math.erfc(abs(estimate / stderr) / math.sqrt(2))
    return float(min(1.0, 2 * stdtr(df, -abs(estimate / stderr))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure (family-wise error; Holm 1979)."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    adjusted = [1.0] * count
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_difference(stderr: float, df: float, *, alpha: float, power: float = 0.8) -> float:
    """Return the true difference that a two-sided test at ``alpha`` finds with probability ``power``.

    (t(1 - alpha / 2) + t(power)) * stderr, as in Bloom 1995.
    """
    freedom = df if math.isfinite(df) else 1e9
    return float((stdtrit(freedom, 1 - alpha / 2) + stdtrit(freedom, power)) * stderr)


def match_rows(
    rows: Sequence[Mapping[str, Any]], axis: str, values: tuple[Any, Any], match_on: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of rows with ``axis`` at the first and second value that agree on ``match_on``.

    Pairs are ordered by i, then j. A null on a ``match_on`` axis agrees with null only.
    """
    second: dict[tuple[str, ...], list[int]] = {}
    for j, row in enumerate(rows):
        if row.get(axis) == values[1]:
            second.setdefault(match_key(row, match_on), []).append(j)
    first = [(i, row) for i, row in enumerate(rows) if row.get(axis) == values[0]]
    return [(i, j) for i, row in first for j in second.get(match_key(row, match_on), ())]


def match_key(row: Mapping[str, Any], match_on: Sequence[str]) -> tuple[str, ...]:
    """Return what two rows must share to be matched."""
    return tuple(str(row.get(name)) for name in match_on)

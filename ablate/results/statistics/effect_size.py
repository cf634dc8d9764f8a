"""How large a difference is: with a confidence interval, in standard deviations, as odds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, chdtri, nctdtrinc, stdtrit

from ablate.results.statistics.paired import PairedSuite, PairedTest

_LARGE_T = 1e3
"""From here on scipy's search for the noncentrality is less exact than its limit; beyond 1e5 it may not end."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; ends may be infinite."""

    estimate: float
    low: float
    high: float


def difference_interval(test: PairedTest, *, level: float = 0.95) -> Interval:
    """Return the difference that was tested with its t interval."""
    half = float(stdtrit(min(test.df, 1e9), (1 + level) / 2)) * test.stderr
    return Interval(test.estimate, test.estimate - half, test.estimate + half)


def standardised_difference(suite: PairedSuite, *, level: float = 0.95) -> Interval | None:
    """Return Cohen's d_z: the mean difference in standard deviations of the differences between units.

    Units are clusters of examples, averaged over seeds. The interval is that of the noncentral t (Cumming and Finch
    2001). Null where all differences are equal or there are fewer than two units.
    """
    share_C = suite.share_C
    total_C = suite.total_SC.mean(axis=0)[share_C > 0]
    units = total_C.size
    unit_C = total_C * units  # the mean over units is the weighted mean over examples
    if units < 2 or float(np.ptp(unit_C)) <= 1e-12:
        return None
    t = float(unit_C.mean() / (unit_C.std(ddof=1) / math.sqrt(units)))
    tail = (1 - level) / 2
    low, high = (_noncentrality(units - 1, p, t) / math.sqrt(units) for p in (1 - tail, tail))
    return Interval(t / math.sqrt(units), low, high)


def _noncentrality(df: int, p: float, t: float) -> float:
    """Return the noncentrality whose t distribution has ``p`` of its mass below t; of a large t its limit.

    There the numerator's error is nothing beside the denominator's, sqrt(chi^2 / df).
    """
    if abs(t) < _LARGE_T:
        return float(nctdtrinc(df, p, t))
    return t * math.sqrt(float(chdtri(df, p if t > 0 else 1 - p)) / df)


def matched_odds(gained: int, lost: int, *, level: float = 0.95) -> Interval | None:
    """Return how many times likelier a changed answer is gained than lost: b / c of McNemar's table.

    The interval is the exact binomial one (Clopper and Pearson 1934) of b / (b + c), as odds. Null where nothing
    changed.
    """
    changed = gained + lost
    if changed == 0:
        return None
    tail = (1 - level) / 2
    low = 0.0 if gained == 0 else float(betaincinv(gained, lost + 1, tail))
    high = 1.0 if lost == 0 else float(betaincinv(gained + 1, lost, 1 - tail))
    estimate, low, high = (share / (1 - share) if share < 1 else math.inf for share in (gained / changed, low, high))
    return Interval(estimate, low, high)

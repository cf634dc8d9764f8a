"""What a comparison can find, and how many seeds or examples would show a difference of a given size.

The variance of a mean difference over S seeds and n times the examples at hand is

    seed / S + example / n + residual / (S n)

(:class:`Components`, estimated from a test that was made). Power is that of the two-sided t-test at Satterthwaite's
degrees of freedom: the noncentral t's mass beyond both critical values (Cohen 1988, ch. 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtrit

from ablate.results.statistics.paired import ENOUGH_DF, PairedTest

MOST_SEEDS = 1000
MOST_EXAMPLES = 100.0
"""Beyond these a plan is no help: times the examples at hand."""
_LARGE_DF = 1e6


@dataclass(frozen=True)
class Components:
    """Variances of one difference: of a seed, of the examples at hand, of both together with one seed.

    ``units`` counts the independent examples at hand, ``alike`` the differences that the variance between seeds is
    pooled over. With one seed that variance is unknown, and is 0 here.
    """

    seed: float
    example: float
    residual: float
    units: int
    alike: int = 1

    def variance(self, seeds: int, examples: float = 1.0) -> float:
        """Return the variance of the mean over so many seeds and times the examples."""
        return self.seed / seeds + self.example / examples + self.residual / (seeds * examples)

    def df(self, seeds: int, examples: float = 1.0) -> float:
        """Return Satterthwaite's degrees of freedom of that variance."""
        of_seeds = (self.seed + self.residual / examples) / seeds
        of_examples = (self.example + self.residual / seeds) / examples
        squares = of_examples**2 / max(self.units * examples - 1, 1)
        of_seeds_df = self.alike * (seeds - 1)
        if of_seeds_df:
            squares += of_seeds**2 / of_seeds_df
        df = self.variance(seeds, examples) ** 2 / squares if squares > 0 else math.inf
        return min(df, of_seeds_df) if 0 < of_seeds_df < ENOUGH_DF else df


def components(test: PairedTest, *, spread: float | None = None, alike: int = 1) -> Components:
    """Return the components of a test's variance; what sampling error makes negative is 0.

    ``spread`` is the variance between seeds that the test assumed, where it is not its own alone, pooled over ``alike``
    differences.
    """
    if test.seeds == 1:
        return Components(0.0, test.within.example, 0.0, test.units)
    residual = test.within.residual * test.seeds
    seed = max((test.spread if spread is None else spread) - residual, 0.0)
    return Components(seed, max(test.within.example - test.within.residual, 0.0), residual, test.units, alike)


def minimum_detectable_difference(stderr: float, df: float, *, alpha: float, power: float = 0.8) -> float:
    """Return the true difference that a two-sided test at ``alpha`` finds with probability ``power``.

    (t(1 - alpha / 2) + t(power)) * stderr, as in Bloom 1995.
    """
    freedom = min(df, 1e9)
    return float((stdtrit(freedom, 1 - alpha / 2) + stdtrit(freedom, power)) * stderr)


def power_of(difference: float, stderr: float, df: float, *, alpha: float) -> float:
    """Return the chance that a two-sided t-test at ``alpha`` finds a true difference of this size."""
    if stderr == 0.0:
        return float(difference != 0.0)
    freedom, shift = min(df, _LARGE_DF), abs(difference) / stderr
    critical = stdtrit(freedom, 1 - alpha / 2)
    # Tails too small for a float come out as nan.
    below, beyond = np.nan_to_num(nctdtr(freedom, shift, [critical, -critical]))
    return float(1 - below + beyond)


def seeds_needed(difference: float, parts: Components, *, alpha: float, power: float = 0.8) -> int | None:
    """Return the fewest seeds (two or more) that find ``difference`` with the examples at hand; None above 1,000.

    None also where more seeds can't help: what examples alone leave uncertain is too much.
    """

    def is_enough(seeds: int) -> bool:
        stderr = math.sqrt(parts.variance(seeds))
        return power_of(difference, stderr, parts.df(seeds), alpha=alpha) >= power

    return _least(is_enough, 2, MOST_SEEDS)


def examples_needed(
    difference: float, parts: Components, seeds: int, *, alpha: float, power: float = 0.8
) -> int | None:
    """Return how many independent examples find ``difference`` with ``seeds`` seeds; None above 100 times as many.

    None also where more examples can't help: what seeds alone leave uncertain is too much.
    """

    def is_enough(units: int) -> bool:
        share = units / parts.units
        stderr = math.sqrt(parts.variance(seeds, share))
        return power_of(difference, stderr, parts.df(seeds, share), alpha=alpha) >= power

    return _least(is_enough, 2, int(parts.units * MOST_EXAMPLES)) if parts.units else None


def _least(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number that is enough, where every larger one is; None when the largest is not."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return low

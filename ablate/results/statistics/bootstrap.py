"""Bootstrap of a paired difference over examples, and with several seeds over seeds and examples.

Seeds and examples are drawn apart, since every seed meets the same examples: the crossed ("pigeonhole") bootstrap
(McCullagh 2000; Owen 2007), not examples within seeds, which would take one example for as many as there are seeds. Of
each, one fewer is drawn than there are (Rao and Wu 1988): so a resampled mean has the variance s^2 / n, where n draws
have (n - 1) / n of it, a third too little with three seeds.

The part of the variance that seeds and examples have together enters up to three times (Owen 2007, theorem 2): the
interval is wide rather than narrow. A percentile interval is as narrow as a normal one, however: below
:data:`ENOUGH_SEEDS` seeds the t-test of :mod:`ablate.results.statistics.paired` is the one to trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ablate.results.statistics.paired import ENOUGH_DF, PairedSuite, least_p
from ablate.results.statistics.permutation import Floats

ENOUGH_SEEDS = ENOUGH_DF + 1
_CHUNK = 1 << 22
"""Numbers drawn at a time, so that a suite of 14,000 examples fits."""


@dataclass(frozen=True)
class Bootstrap:
    """A mean difference with its percentile interval.

    ``p`` is two-sided: at least 2 / (resamples + 1), and no less than that of all n examples' signs agreeing by chance.
    """

    estimate: float
    low: float
    high: float
    p: float


def hierarchical_bootstrap(
    suites: Mapping[str, PairedSuite],
    weights: Mapping[str, float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Return the bootstrap of a weighted mean of suites' differences; with one seed over examples alone."""
    stream = np.random.default_rng(seed)
    chosen = [(weights[name], suites[name]) for name in weights]
    estimate = sum(weight * float(suite.mean_S.mean()) for weight, suite in chosen)
    seeds = chosen[0][1].seeds
    share_BS = draw_shares(stream, seeds, resamples)
    drawn_B = np.zeros(resamples)
    for weight, suite in chosen:
        drawn_B += weight * _resampled(stream, suite, share_BS)
    low, high = np.quantile(drawn_B, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((drawn_B <= 0).sum()), int((drawn_B >= 0).sum()))
    least = least_p(sum(int(np.count_nonzero(suite.share_C)) for _, suite in chosen))
    return Bootstrap(estimate, float(low), float(high), max(min(1.0, 2 * (beyond + 1) / (resamples + 1)), least))


def draw_shares(stream: np.random.Generator, units: int, resamples: int) -> Floats:
    """Return in what share each unit is in each resample [resamples, units]; one unit is always all of it."""
    if units == 1:
        return np.ones((resamples, 1))
    shares: Floats = stream.multinomial(units - 1, np.full(units, 1 / units), size=resamples) / (units - 1)
    return shares


def draw_examples(stream: np.random.Generator, units: int, resamples: int) -> Iterator[tuple[slice, Floats]]:
    """Yield the resamples a part at a time: which they are, and the share of each unit in them."""
    step = max(1, _CHUNK // units)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        yield part, draw_shares(stream, units, part.stop - start)


def _resampled(stream: np.random.Generator, suite: PairedSuite, share_BS: Floats) -> Floats:
    """Weighted mean difference of every resample; a cluster is drawn with all its examples."""
    total_SC, share_C = suite.total_SC, suite.share_C
    mean_B = np.empty(share_BS.shape[0])
    for part, draw_BC in draw_examples(stream, share_C.size, mean_B.size):
        mean_B[part] = (share_BS[part] * (draw_BC @ total_SC.T)).sum(axis=1) / (draw_BC @ share_C)
    return mean_B

"""Whether a reward model's confidence in a pair is right as often as it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

BINS = 10


def calibration_error(margins: Sequence[float]) -> float | None:
    """Return the expected calibration error of sigma(margin), margins being chosen minus rejected scores.

    A reward model is sure of its pick with c = sigma(|margin|), from 0.5 to 1, and right where the margin is above 0;
    a margin of 0 is a coin's toss, half right. Pairs go into ten bins of equal width by c; the error is the mean of
    |share of right picks - mean c| over bins, weighted by their pairs (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    Null without a pair.
    """
    if not margins:
        return None
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for margin in margins:
        confidence = 1 / (1 + math.exp(-abs(margin)))
        place = min(int((confidence - 0.5) * 2 * BINS), BINS - 1)
        bins[place].append((confidence, 0.5 if margin == 0 else float(margin > 0)))
    gaps = [abs(math.fsum(right - confidence for confidence, right in pairs)) for pairs in bins]
    return math.fsum(gaps) / len(margins)

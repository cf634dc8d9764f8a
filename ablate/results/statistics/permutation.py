"""The exact null distribution of a mean of paired differences whose signs are exchangeable; nothing is drawn.

If two models are exchangeable, each unit's difference is as likely with either sign (Fisher 1935), so the statistic is
a sum of independent two-point variables. Its distribution over all 2^C sign patterns is a convolution, made here by one
Fourier transform: on the grid of the differences' common unit it is exact, and there is neither a seed nor a smallest
p that a number of draws would set.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

Floats: TypeAlias = npt.NDArray[np.float64]

_TIE = 1e-12
_SMALLEST = 1e-14
"""Below this the transform's rounding is as large as the result."""
_REACH = 12.0
"""Standard deviations that the grid covers: beyond lies at most 2 exp(-72) of the mass (Hoeffding 1963)."""
_FINE = 1_000
"""Grid steps in a standard deviation, for differences that have no common unit."""
_MOST_STEPS = 1 << 17


def sign_flip_p(total_C: Floats) -> float:
    """Return P(|sum of ±t| >= |sum of t|) over all sign patterns of the units' summed differences [C], two-sided.

    Differences without a common unit (log-probabilities) are rounded to a thousandth of the statistic's standard
    deviation, which changes its variance by less than 1e-6 C.
    """
    scale = float(np.abs(total_C).sum())
    moved_C = total_C[np.abs(total_C) > _TIE * max(scale, 1.0)]
    if moved_C.size == 0:
        return 1.0
    sd = math.sqrt(float((moved_C**2).sum()))
    steps_C = np.rint(moved_C / (_common_unit(np.abs(moved_C)) or sd / _FINE)).astype(np.int64)
    observed = abs(int(steps_C.sum()))
    mass_N = _distribution(np.abs(steps_C))
    if observed == 0:
        return 1.0
    beyond = float(mass_N[observed : mass_N.size - observed + 1].sum()) if 2 * observed <= mass_N.size else 0.0
    return min(1.0, max(beyond, 2.0 ** (1 - moved_C.size) if moved_C.size < 60 else 0.0, _SMALLEST))


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the p of McNemar's exact test: of ``gained`` + ``lost`` changed answers as few or fewer on either side.

    Twice the binomial tail at one half, at most 1. It is what :func:`sign_flip_p` gives where every difference is -1, 0
    or 1.
    """
    changed = gained + lost
    return min(1.0, 2 * float(bdtr(min(gained, lost), changed, 0.5))) if changed else 1.0


def _distribution(steps_C: npt.NDArray[np.int64]) -> Floats:
    """Return P(sum of ±steps = n) at index n, and of -n at index N - n."""
    sd = math.sqrt(float((steps_C.astype(np.float64) ** 2).sum()))
    reach = min(int(steps_C.sum()), math.ceil(_REACH * sd))
    size = 1 << (2 * reach + 2).bit_length()
    frequency_K = np.arange(size // 2 + 1)
    product_K = np.ones(frequency_K.size)
    for step, count in zip(*np.unique(steps_C, return_counts=True), strict=True):
        product_K *= np.cos(2 * np.pi * (frequency_K * int(step) % size) / size) ** int(count)
    mass_N: Floats = np.fft.irfft(product_K, size)
    return mass_N


def _common_unit(sizes_C: Floats) -> float | None:
    """Return the largest whole part of the smallest size that every size is a multiple of; None without one."""
    smallest = float(sizes_C.min())
    sd = math.sqrt(float((sizes_C**2).sum()))
    for parts in range(1, 13):
        steps_C = sizes_C * parts / smallest
        if 2 * _REACH * sd * parts / smallest > _MOST_STEPS:
            return None
        if np.abs(steps_C - np.rint(steps_C)).max() < 1e-6:
            return smallest / parts
    return None

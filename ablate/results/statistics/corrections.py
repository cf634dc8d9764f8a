"""Corrections for many tests: of the chance of any false mark, or of the share of marks that are false."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal

Correction = Literal["holm", "benjamini-hochberg", "none"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure (family-wise error; Holm 1979)."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    scaled = [(count - rank) * p_values[index] for rank, index in enumerate(order)]
    return _in_place(order, accumulate(scaled, max))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by the step-up procedure of Benjamini and Hochberg (false discovery rate; 1995).

    The rate holds for independent tests and for positively dependent ones, as comparisons with one baseline are.
    """
    count = len(p_values)
    order = sorted(range(count), key=lambda index: -p_values[index])
    scaled = [count / (count - rank) * p_values[index] for rank, index in enumerate(order)]
    return _in_place(order, accumulate(scaled, min))


def adjusted(p_values: Sequence[float], correction: Correction) -> list[float]:
    """Return the p-values of one family, adjusted by the named correction."""
    if correction == "holm":
        return holm(p_values)
    return benjamini_hochberg(p_values) if correction == "benjamini-hochberg" else list(p_values)


def _in_place(order: Sequence[int], values: Iterable[float]) -> list[float]:
    """Return ordered values, none above 1, each at the place that ``order`` gives it."""
    by_place = dict(zip(order, values, strict=True))
    return [min(1.0, by_place[place]) for place in range(len(order))]

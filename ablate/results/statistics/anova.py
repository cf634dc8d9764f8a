"""Which axis of a grid explains how much of the variance of a number: analysis of variance over runs.

Every run is one observation. Factors are axes; the model has their main effects and interactions of two. An axis that
some values of another do not read (a reward model's size, where DPO has no reward model) is nested in that one: it is
tested within the values that read it, and is left out where the outer one is tested.

Sums of squares are of type II (Langsrud 2003): a term's beyond all terms that do not contain it. They are differences
of residual sums of squares of two least-squares fits, so that empty cells of the grid and aliased columns cost degrees
of freedom and nothing else; statsmodels' anova_lm, which agrees where no cell is empty, needs a model of full rank. In
a balanced grid they add up to the total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from scipy.special import fdtrc

from ablate.results.statistics.permutation import Floats

Levels = Sequence[str | None]
"""A factor's value in every run, in words; None where it is not read."""

Term: TypeAlias = tuple[str, ...]
"""The factors that act together."""

_NONE = "\x00"
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Effect:
    """What one term explains: ``share`` of the total sum of squares (eta^2), ``omega`` its less biased form.

    ``factors`` are the axes of the term; of the residual there are none, and neither F nor p. ``omega`` is 0 where
    chance alone explains as much.
    """

    factors: Term
    df: int
    squares: float
    share: float
    omega: float
    f: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Anova:
    """Effects in the order of the terms, the residual last; ``aliased`` terms can't be told from the others."""

    effects: tuple[Effect, ...]
    aliased: tuple[Term, ...]
    pooled: tuple[Term, ...]
    runs: int


def analyse(value_N: Floats, factors: Mapping[str, Levels], blocks: Mapping[str, Levels] | None = None) -> Anova:
    """Return the effects of ``factors`` on the values of N runs.

    ``blocks`` (seeds, base models) are main effects without interactions. Where runs are not repeated, nothing is left
    to judge the terms by: the interactions are then the residual (``pooled``), as in a design of one run a cell. Raises
    ValueError below two runs.
    """
    if value_N.size < 2:
        raise ValueError("an analysis of variance needs two runs")
    blocks = dict(blocks or {})
    levels = {**factors, **blocks}
    mains: list[Term] = [(name,) for name in (*blocks, *factors)]
    pairs: list[Term] = [pair for pair in combinations(factors, 2) if not _is_nested_pair(levels, pair)]
    design = _Design(value_N, levels)
    if pairs and design.residual([*mains, *pairs])[1] == 0:
        return _effects(design, mains, tuple(pairs))
    return _effects(design, [*mains, *pairs], ())


def nested_in(levels: Mapping[str, Levels], inner: str) -> list[str]:
    """Return the factors whose values say whether ``inner`` is read at all."""
    unread = {row for row, value in enumerate(levels[inner]) if value is None}
    if not unread or len(unread) == len(levels[inner]):
        return []
    found = []
    for outer, values in levels.items():
        here = {values[row] for row in unread}
        if outer != inner and not any(values[row] in here for row in range(len(values)) if row not in unread):
            found.append(outer)
    return found


class _Design:
    """Least-squares fits of one number on dummies of terms; each set of terms is fitted once."""

    def __init__(self, value_N: Floats, levels: Mapping[str, Levels]) -> None:
        self.value_N = value_N - value_N.mean()
        self.levels = levels
        self._fits: dict[frozenset[Term], tuple[float, int]] = {}

    @property
    def total(self) -> float:
        """Total sum of squares."""
        return float(self.value_N @ self.value_N)

    def residual(self, terms: Sequence[Term]) -> tuple[float, int]:
        """Return the residual sum of squares of a model and its degrees of freedom."""
        key = frozenset(terms)
        if key not in self._fits:
            columns = [np.ones((self.value_N.size, 1)), *(self._dummies(term) for term in terms)]
            design = np.hstack(columns)
            solution, _, rank, _ = np.linalg.lstsq(design, self.value_N)
            rest_N = self.value_N - design @ solution
            self._fits[key] = float(rest_N @ rest_N), self.value_N.size - int(rank)
        return self._fits[key]

    def contains(self, wide: Term, narrow: Term) -> bool:
        """Whether a term has another in it: an interaction its parts, a nested axis the one it is nested in."""
        outer = {name for part in wide for name in (part, *nested_in(self.levels, part))}
        return set(narrow) < outer | set(wide) and set(narrow) != set(wide)

    def _dummies(self, term: Term) -> Floats:
        rows = ["\x1f".join(_NONE if value is None else value for value in row) for row in self._values(term)]
        _, index_N = np.unique(rows, return_inverse=True)
        dummies: Floats = np.eye(int(index_N.max()) + 1)[index_N]
        return dummies

    def _values(self, term: Term) -> list[tuple[str | None, ...]]:
        return list(zip(*(self.levels[name] for name in term), strict=True))


def _is_nested_pair(levels: Mapping[str, Levels], pair: Term) -> bool:
    one, other = pair
    return other in nested_in(levels, one) or one in nested_in(levels, other)


def _effects(design: _Design, terms: Sequence[Term], pooled: tuple[Term, ...]) -> Anova:
    rest, rest_df = design.residual(terms)
    scale = rest / rest_df if rest_df else 0.0
    effects, aliased = [], []
    for term in terms:
        without = [other for other in terms if other != term and not design.contains(other, term)]
        (small, small_df), (large, large_df) = design.residual(without), design.residual([*without, term])
        squares, df = max(small - large, 0.0), small_df - large_df
        if df == 0:
            aliased.append(term)
        else:
            effects.append(_effect(term, df, squares, scale, rest_df, design.total))
    share = rest / design.total if design.total > 0 else 0.0
    residual = Effect((), rest_df, rest, share, share)
    return Anova((*effects, residual), tuple(aliased), pooled, design.value_N.size)


def _effect(term: Term, df: int, squares: float, scale: float, rest_df: int, total: float) -> Effect:
    if total <= 0:
        return Effect(term, df, 0.0, 0.0, 0.0)
    omega = max(0.0, (squares - df * scale) / (total + scale))
    if rest_df == 0:
        return Effect(term, df, squares, squares / total, omega)
    if scale <= _TOLERANCE * total:
        f, p = float("inf"), 0.0
    else:
        f = squares / df / scale
        p = float(fdtrc(df, rest_df, f))
    return Effect(term, df, squares, squares / total, omega, f, p)

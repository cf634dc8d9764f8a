"""AlpacaEval's length-controlled win rate: what the win rate would be if both responses were as long.

A logistic model of the preference without intercept over three features, whose first is set to 0 for the prediction:
tanh of the difference in length (baseline minus model, in characters, by its standard deviation), the difficulty of the
instruction, and a constant. Dubois et al. 2024 (arXiv 2404.04475); the recipe of the fit is that of alpaca_eval 0.6.6
(``metrics/glm_winrate.py``): L1 penalty, its strength by cross-validation in five groups.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablate.errors import DataError

Array = NDArray[np.float64]
FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)
"""Inverse strengths of the penalty that are tried: the grid of scikit-learn's LogisticRegressionCV."""
COLUMNS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
"""Columns of the published weights."""
_TOLERANCE, _PASSES = 1e-10, 200


@dataclass(frozen=True)
class LengthControl:
    """A fitted or published model: the mean of its predictions at equal length, and their standard error."""

    weights: tuple[float, float, float]
    win_rate: float
    stderr: float | None
    n: int


def fit(
    preferences_E: Sequence[float | None], length_differences_E: Sequence[int], difficulties_E: Sequence[float]
) -> LengthControl | None:
    """Fit the model to preferences in 0..1 (None: none) and predict all examples at equal length.

    ``length_differences_E`` are characters of the baseline's response minus those of the model's, all of them, as the
    standard deviation is over all. None where fewer preferences than folds are there, or all lengths differ alike.
    """
    differences_E = np.asarray(length_differences_E, dtype=np.float64)
    known = np.array([value is not None for value in preferences_E])
    spread = float(differences_E.std(ddof=1)) if len(differences_E) > 1 else 0.0
    if known.sum() < FOLDS or spread == 0.0:
        return None
    difficulties = np.asarray(difficulties_E, dtype=np.float64)
    features_E3 = np.column_stack([np.tanh(differences_E / spread), difficulties, np.ones_like(difficulties)])
    targets = np.array([value for value in preferences_E if value is not None], dtype=np.float64)
    weights_3 = cross_validated(features_E3[known], targets)
    return _predicted(weights_3, difficulties)


def published(path: Path, model: str, difficulties_E: Sequence[float]) -> LengthControl | None:
    """The prediction of the weights that AlpacaEval published for ``model``; None where it has none for it."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or not {"", *COLUMNS} <= rows[0].keys():
        raise DataError(f"{path} has no columns {', '.join(COLUMNS)}: these are no published weights")
    found = [row for row in rows if row[""] == model]
    if not found:
        return None
    weights_3 = np.array([float(found[-1][name]) for name in COLUMNS])
    return _predicted(weights_3, np.asarray(difficulties_E, dtype=np.float64))


def _predicted(weights_3: Array, difficulties_E: Array) -> LengthControl:
    shares_E = _sigmoid(weights_3[1] * difficulties_E + weights_3[2])
    n = len(shares_E)
    stderr = float(shares_E.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    first, second, third = (float(weight) for weight in weights_3)
    return LengthControl((first, second, third), float(shares_E.mean()), stderr, n)


def cross_validated(features_E3: Array, targets_E: Array) -> Array:
    """Weights [3] at the strength of penalty with the smallest mean loss over held-out folds."""
    folds_E = group_folds(len(targets_E), FOLDS)
    scores = []
    for strength in STRENGTHS:
        losses = []
        for fold in range(FOLDS):
            train, test = folds_E != fold, folds_E == fold
            weights_3 = penalised(features_E3[train], targets_E[train], strength)
            losses.append(_log_loss(features_E3[test] @ weights_3, targets_E[test]))
        scores.append(float(np.mean(losses)))
    return penalised(features_E3, targets_E, float(STRENGTHS[int(np.argmin(scores))]))


def group_folds(count: int, folds: int) -> NDArray[np.int64]:
    """The fold of each of ``count`` examples, two rows each, as scikit-learn's GroupKFold deals them out."""
    order = np.argsort(np.full(count, 2))[::-1]
    found, sizes = np.zeros(count, dtype=np.int64), np.zeros(folds)
    for group in order:
        lightest = int(np.argmin(sizes))
        sizes[lightest] += 2
        found[group] = lightest
    return found


def penalised(features_E3: Array, targets_E: Array, strength: float) -> Array:
    """Weights that minimise sum |w| + strength · sum of log-losses against soft targets, by coordinate descent.

    Each step is Newton's for one weight with the penalty in closed form (Friedman et al. 2010), halved until the
    objective falls.
    """
    weights = np.zeros(features_E3.shape[1])
    scores_E = features_E3 @ weights
    value = _objective(weights, scores_E, targets_E, strength)
    for _ in range(_PASSES):
        before = value
        for place in range(len(weights)):
            column_E = features_E3[:, place]
            shares_E = _sigmoid(scores_E)
            gradient = strength * float(column_E @ (shares_E - targets_E))
            curvature = strength * float(column_E**2 @ (shares_E * (1 - shares_E))) + 1e-12
            step = _soft(weights[place] - gradient / curvature, 1 / curvature) - weights[place]
            while abs(step) > 1e-14:
                trial = weights.copy()
                trial[place] += step
                moved_E = scores_E + step * column_E
                reached = _objective(trial, moved_E, targets_E, strength)
                if reached <= value:
                    weights, scores_E, value = trial, moved_E, reached
                    break
                step /= 2
        if before - value <= _TOLERANCE * max(1.0, abs(before)):
            break
    return weights


def _objective(weights: Array, scores_E: Array, targets_E: Array, strength: float) -> float:
    return float(np.abs(weights).sum() + strength * len(targets_E) * _log_loss(scores_E, targets_E))


def _log_loss(scores_E: Array, targets_E: Array) -> float:
    """Mean of -t·log σ(s) - (1 - t)·log(1 - σ(s))."""
    return float(np.mean(np.logaddexp(0.0, scores_E) - targets_E * scores_E))


def _soft(value: float, threshold: float) -> float:
    return math.copysign(max(abs(value) - threshold, 0.0), value)


def _sigmoid(values: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -values))

"""Standard errors of one model's score: a mean over examples that may share a passage, a dialogue or a kind."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ablate.results.statistics.permutation import Floats


def clustered_stderr(value_E: Floats, weight_E: Floats, cluster_E: npt.NDArray[np.int64]) -> float | None:
    """Return the cluster-robust standard error of the weighted mean (weights sum to 1); null below two clusters.

    sqrt(C / (C - 1) * sum over clusters of (sum over its examples of w (x - mean))^2), Liang and Zeger 1986; with a
    cluster for every example and equal weights it is sd / sqrt(n). Examples share a cluster where one text asks them
    (Miller 2024, eq. 4).
    """
    mean = float(weight_E @ value_E)
    total_C = np.bincount(cluster_E, weights=weight_E * (value_E - mean))
    clusters = np.count_nonzero(np.bincount(cluster_E, weights=weight_E))
    if clusters < 2:
        return None
    return math.sqrt(clusters / (clusters - 1) * float(total_C @ total_C))

"""How sure an order is: ranks over resamples of seeds and examples.

Rows of a table are ordered again in every resample. Examples are the same for all rows, so they are drawn once for all;
seeds are drawn for each row, unless they are the same models for all of them. Draws are those of
:mod:`ablate.results.statistics.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablate.results.statistics.bootstrap import draw_examples, draw_shares
from ablate.results.statistics.paired import PairedSuite
from ablate.results.statistics.permutation import Floats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankStability:
    """Ranks of R rows, 1 the best; ``tau`` is Kendall's between each resample's order and the estimated one.

    ``above_RR[a, b]`` is the share of resamples with row a above row b, a tie counted half.
    """

    value_R: Floats
    rank_R: Ints
    low_R: Ints
    high_R: Ints
    best_R: Floats
    above_RR: Floats
    tau: float
    tau_low: float
    tau_high: float


def rank_stability(
    rows: Sequence[Sequence[tuple[float, PairedSuite]]],
    *,
    higher_is_better: bool = True,
    same_seeds: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RankStability:
    """Return how stable the order of rows is.

    A row is a weighted sum of suites, whose "differences" are the scores of its runs; every row has the same suites
    with the same examples, in one order. With ``same_seeds`` the runs of all rows stand in one order of seeds, whose
    models they share. Raises ValueError below two rows.
    """
    if len(rows) < 2:
        raise ValueError("an order needs two rows")
    stream = np.random.default_rng(seed)
    if same_seeds:
        shares = [draw_shares(stream, rows[0][0][1].seeds, resamples)] * len(rows)
    else:
        shares = [draw_shares(stream, row[0][1].seeds, resamples) for row in rows]
    drawn_BR = np.zeros((resamples, len(rows)))
    for place, (_, suite) in enumerate(rows[0]):
        share_C = suite.share_C
        totals = [row[place][0] * row[place][1].total_SC for row in rows]
        for part, draw_BC in draw_examples(stream, share_C.size, resamples):
            scale_B = draw_BC @ share_C
            for number, total_SC in enumerate(totals):
                drawn_BR[part, number] += (shares[number][part] * (draw_BC @ total_SC.T)).sum(axis=1) / scale_B
    value_R = np.array([sum(weight * float(suite.mean_S.mean()) for weight, suite in row) for row in rows])
    return summarise(value_R, drawn_BR, higher_is_better=higher_is_better, level=level)


def summarise(value_R: Floats, drawn_BR: Floats, *, higher_is_better: bool, level: float) -> RankStability:
    """Return the ranks of estimated values and what resampled values [resamples, rows] say of them."""
    sign = 1.0 if higher_is_better else -1.0
    drawn_BR = sign * drawn_BR
    rank_BR = ranks(drawn_BR)
    rank_R = ranks(sign * value_R[None])[0]
    tail = (1 - level) / 2
    low_R, high_R = np.quantile(rank_BR, [tail, 1 - tail], axis=0, method="inverted_cdf")
    step_BRR = np.sign(drawn_BR[:, :, None] - drawn_BR[:, None, :])
    above_RR = (step_BRR.mean(axis=0) + 1) / 2
    fixed_RR = np.sign(sign * (value_R[:, None] - value_R[None, :]))
    pairs = len(value_R) * (len(value_R) - 1)
    tau_B = (step_BRR * fixed_RR).sum(axis=(1, 2)) / pairs
    tau_low, tau_high = np.quantile(tau_B, [tail, 1 - tail])
    best_R = (rank_BR == 1).mean(axis=0)
    return RankStability(
        value_R, rank_R, low_R.astype(np.int64), high_R.astype(np.int64), best_R, above_RR,
        float(tau_B.mean()), float(tau_low), float(tau_high),
    )  # fmt: skip


def ranks(value_BR: Floats) -> Ints:
    """Return ranks from 1, the largest first; equal values share the best of theirs."""
    above_BR: Ints = (value_BR[:, None, :] > value_BR[:, :, None]).sum(axis=2) + 1
    return above_BR

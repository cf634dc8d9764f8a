"""Losses of policies over k ranked responses to a prompt: pure functions of log-probabilities, one value a prompt.

Axes and ranks are those of ``ablate.training.reward_losses``: ``_BK`` is a prompt by its responses, rank 1 is best,
equal ranks are tied and say nothing about the two, rank 0 is no response.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu

from ablate.training.reward_losses import ordered_pairs


@dataclass(frozen=True)
class RankedLogprobs:
    """What a loss over rankings may read: sums of log pi over each response, its tokens, rank and score, [B, K].

    Scores are NaN where a set has none. Log-probabilities are 0 and tokens 1 where there is no response.
    """

    logps_BK: Tensor
    tokens_BK: Tensor
    ranks_BK: Tensor
    scores_BK: Tensor

    def averaged(self, exponent: float = 1.0) -> Tensor:
        """Return log pi(y) / |y|^exponent."""
        return self.logps_BK / self.tokens_BK**exponent

    def best_logp(self) -> Tensor:
        """Return log pi of the best response [B], the mean over those that share rank 1."""
        best_BK = self.ranks_BK == 1
        return self.logps_BK.where(best_BK, 0.0).sum(1) / best_BK.sum(1)


def rrhf(ranked: RankedLogprobs, *, rank_weight: float, length_exponent: float) -> Tensor:
    """Return RRHF's loss per prompt; Yuan et al. 2023 (arXiv 2304.05302)."""
    averaged_BK = ranked.averaged(length_exponent)  # eq. 1
    excess_BKK = relu(averaged_BK.unsqueeze(1) - averaged_BK.unsqueeze(2))  # p_j - p_i
    rank_B = torch.where(ordered_pairs(ranked.ranks_BK), excess_BKK, 0.0).sum((1, 2))  # eq. 2
    return rank_weight * rank_B - ranked.best_logp()  # eq. 4, 5


def pro(ranked: RankedLogprobs, *, sft_weight: float) -> Tensor:
    """Return PRO's loss per prompt; Song et al. 2023 (arXiv 2306.17492)."""
    below_BKK = ordered_pairs(ranked.ranks_BK)
    gaps_BKK = (ranked.scores_BK.unsqueeze(2) - ranked.scores_BK.unsqueeze(1)).clamp_min(0)
    # 1 / T of eq. 7; a set of ranks alone has no scores to weigh by: every T is 1, eq. 5
    weights_BKK = torch.where(below_BKK, gaps_BKK.nan_to_num(nan=1.0), 0.0)
    averaged_BK = ranked.averaged()
    own_BK = averaged_BK * weights_BKK.amax(2)  # T of the better response is the smallest: the largest gap
    others_BKK = (averaged_BK.unsqueeze(1) * weights_BKK).masked_fill(~below_BKK, float("-inf"))
    denominators_BK = torch.cat([own_BK.unsqueeze(2), others_BKK], 2).logsumexp(2)
    contrast_B = (denominators_BK - own_BK).where(ranked.ranks_BK > 0, 0.0).sum(1)
    responses_B = (ranked.ranks_BK > 0).sum(1)
    return contrast_B - sft_weight * (responses_B - 1) ** 2 * ranked.best_logp()  # eq. 6


# Losses over rankings, by the name of the method; keyword arguments are its parameters.
POLICY_LOSSES: dict[str, Callable[..., Tensor]] = {"rrhf": rrhf, "pro": pro}

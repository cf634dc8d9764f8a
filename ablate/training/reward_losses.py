"""Losses of reward models over rankings and pairs: pure functions of scores, one value a prompt.

``_BK`` is a prompt by its responses, padded to the longest list. ``ranks_BK`` are 1 for the best response, equal for
responses that are tied, and 0 where a prompt has no response. A score where there is none must be finite.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def ordered_pairs(ranks_BK: Tensor) -> Tensor:
    """Return where response i (second axis) is ranked strictly above response j (third axis), bool [B, K, K]."""
    present_BK = ranks_BK > 0
    above_BKK = ranks_BK.unsqueeze(2) < ranks_BK.unsqueeze(1)
    return above_BKK & present_BK.unsqueeze(2) & present_BK.unsqueeze(1)


def mean_over(values_BKK: Tensor, pairs_BKK: Tensor) -> Tensor:
    """Return the mean of the values where ``pairs`` holds, for each prompt [B]; 0 where it holds nowhere."""
    total_B = torch.where(pairs_BKK, values_BKK, 0.0).sum((1, 2))
    return total_B / pairs_BKK.sum((1, 2)).clamp_min(1)


def k_wise(scores_BK: Tensor, ranks_BK: Tensor) -> Tensor:
    """Return -sum_i log(exp r_i / (exp r_i + sum of exp r_j over j ranked below i)); Zhu et al. 2023, K-wise MLE.

    Without ties this is -log of the Plackett-Luce probability of the ranking: i runs from the best to the last, whose
    term is 0. Tied responses do not compete with one another, so that a tie says nothing about the two.
    """
    itself_KK = torch.eye(ranks_BK.shape[1], dtype=torch.bool, device=ranks_BK.device)
    competes_BKK = ordered_pairs(ranks_BK) | itself_KK
    others_BKK = scores_BK.unsqueeze(1).expand_as(competes_BKK)
    denominators_BK = others_BKK.masked_fill(~competes_BKK, float("-inf")).logsumexp(2)
    return (denominators_BK - scores_BK).where(ranks_BK > 0, 0.0).sum(1)


def instruct_k(scores_BK: Tensor, ranks_BK: Tensor) -> Tensor:
    """Return the mean over a prompt's pairs of -log sigma(r_i - r_j); Ouyang et al. 2022 (arXiv 2203.02155), eq. 1.

    Pairs that are tied are left out of the mean, as in the paper.
    """
    differences_BKK = scores_BK.unsqueeze(2) - scores_BK.unsqueeze(1)
    return mean_over(-logsigmoid(differences_BKK), ordered_pairs(ranks_BK))


def centring(scores_BK: Tensor, ranks_BK: Tensor) -> Tensor:
    """Return the mean of (r_i + r_j)^2 over all pairs of a prompt; Eisenstein et al. 2023 (arXiv 2312.09244), eq. 7.

    Losses over differences leave the level of scores open; this term draws each prompt's mean to 0.
    """
    present_BK = ranks_BK > 0
    pairs_BKK = (present_BK.unsqueeze(2) & present_BK.unsqueeze(1)).triu(1)
    return mean_over((scores_BK.unsqueeze(2) + scores_BK.unsqueeze(1)) ** 2, pairs_BKK)


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, margins_B: Tensor | float = 0.0) -> Tensor:
    """Return -log sigma(r_c - r_r - m) per pair of scores; Ouyang et al. 2022 (arXiv 2203.02155), eq. 1 with K = 2.

    The margins m are those of Touvron et al. 2023 (arXiv 2307.09288), eq. 2.
    """
    return -logsigmoid(chosen_B - rejected_B - margins_B)


def both_orders(forward_B: Tensor, backward_B: Tensor) -> Tensor:
    """Return -[log sigma(f(c, r)) + log sigma(-f(r, c))] / 2: f is the log-odds that the response read first is better.

    Every pair is read in both orders, so that the place of a response says nothing.
    """
    return -(logsigmoid(forward_B) + logsigmoid(-backward_B)) / 2


# Losses over rankings, by the name of ``reward_model.loss``.
RANKING_LOSSES = {"k-wise": k_wise, "instruct-k": instruct_k}

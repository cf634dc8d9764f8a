"""Losses of offline preference methods that have no reference model: pure functions of tensors, one value a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PolicyLogprobs:
    """What a loss without a reference may read of a batch of pairs: the policy's sums and token counts, shape [B]."""

    chosen_B: Tensor
    rejected_B: Tensor
    chosen_tokens_B: Tensor
    rejected_tokens_B: Tensor

    @property
    def mean_chosen_B(self) -> Tensor:
        """Mean of log pi over the chosen completion's tokens."""
        return self.chosen_B / self.chosen_tokens_B

    @property
    def mean_rejected_B(self) -> Tensor:
        """Mean of log pi over the rejected completion's tokens."""
        return self.rejected_B / self.rejected_tokens_B

    def rewards(self, beta: float) -> tuple[Tensor, Tensor]:
        """Return beta mean log pi of chosen and rejected: SimPO's rewards, by which it compares completions."""
        return beta * self.mean_chosen_B, beta * self.mean_rejected_B


def simpo(pairs: PolicyLogprobs, *, beta: float, gamma: float) -> Tensor:
    """Return -log sigma(r(c) - r(r) - gamma) per pair, r = beta mean log pi; Meng et al. 2024 (arXiv 2405.14734).

    Equation 6. ``gamma`` is the margin of the paper; its authors' code and open-instruct take gamma / beta instead.
    """
    chosen_B, rejected_B = pairs.rewards(beta)
    return -logsigmoid(chosen_B - rejected_B - gamma)


def orpo(pairs: PolicyLogprobs, *, odds_ratio_weight: float) -> Tensor:
    """Return -mean log pi(c) - lambda log sigma(log of the odds ratio) per pair; Hong et al. 2024 (arXiv 2403.07691).

    Equations 6 and 7; the probability of a completion is the geometric mean of its tokens' (eq. 1), and the first
    term is over the completion alone. ``odds_ratio_weight`` is lambda.
    """
    chosen_B, rejected_B = pairs.mean_chosen_B, pairs.mean_rejected_B
    log_odds_ratio_B = (chosen_B - _log1mexp(chosen_B)) - (rejected_B - _log1mexp(rejected_B))  # eq. 4 and 5
    return -chosen_B - odds_ratio_weight * logsigmoid(log_odds_ratio_B)


def _log1mexp(values: Tensor) -> Tensor:
    # expm1 keeps the digits of probabilities near 1; near 0 the result is 0 to float precision, as it must be.
    return torch.log(-torch.expm1(values))


# Losses over the policy's log-probabilities alone, by name; keyword arguments are the method's parameters.
REFERENCE_FREE_LOSSES: dict[str, Callable[..., Tensor]] = {"simpo": simpo, "orpo": orpo}

"""Losses of offline preference methods: pure functions of tensors, one a method, one value a pair.

Notation: pi the policy, ref the frozen reference, c the chosen and r the rejected completion, sigma the logistic
function. ``_B`` marks a vector over the pairs of a batch; log-probabilities are sums over the completion's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


@dataclass(frozen=True)
class PairLogprobs:
    """What an offline loss may read of a batch of pairs: sums over completions, shape [B], and token counts."""

    chosen_B: Tensor
    rejected_B: Tensor
    reference_chosen_B: Tensor
    reference_rejected_B: Tensor
    chosen_tokens_B: Tensor
    rejected_tokens_B: Tensor

    @property
    def log_ratio_difference_B(self) -> Tensor:
        """(log pi(c) - log ref(c)) - (log pi(r) - log ref(r)): DPO's h without beta."""
        return self.chosen_ratio_B - self.rejected_ratio_B

    @property
    def chosen_ratio_B(self) -> Tensor:
        """log pi(c) - log ref(c)."""
        return self.chosen_B - self.reference_chosen_B

    @property
    def rejected_ratio_B(self) -> Tensor:
        """log pi(r) - log ref(r)."""
        return self.rejected_B - self.reference_rejected_B

    @property
    def mean_ratio_difference_B(self) -> Tensor:
        """The difference of log-ratios with each completion's divided by its number of tokens."""
        return self.chosen_ratio_B / self.chosen_tokens_B - self.rejected_ratio_B / self.rejected_tokens_B

    def rewards(self, beta: float) -> tuple[Tensor, Tensor]:
        """Return the implicit rewards beta (log pi - log ref) of chosen and rejected."""
        return beta * self.chosen_ratio_B, beta * self.rejected_ratio_B


def dpo(pairs: PairLogprobs, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the DPO loss per pair; Rafailov et al. 2023 (arXiv 2305.18290).

    ``label_smoothing`` is the probability epsilon that a label is flipped: the binary cross-entropy with the target
    1 - epsilon, Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO" (conservative DPO). It is
    not the debiased form, which divides by 1 - 2 epsilon.
    """
    h_B = beta * pairs.log_ratio_difference_B  # the argument of sigma in eq. 7
    return -(1 - label_smoothing) * logsigmoid(h_B) - label_smoothing * logsigmoid(-h_B)  # eq. 7; the note's eq. 3


def ipo(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return (h - 1/(2 beta))^2 per pair, h the difference of summed log-ratios; Azar et al. 2023 (arXiv 2310.12036).

    Equation 17 with tau = beta, as Ivison et al. ran it; :func:`ipo_avg` divides by lengths.
    """
    return (pairs.log_ratio_difference_B - 1 / (2 * beta)) ** 2


def ipo_avg(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return IPO's loss per pair on mean log-ratios: each completion's is divided by its number of tokens."""
    return (pairs.mean_ratio_difference_B - 1 / (2 * beta)) ** 2


def hinge(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return max(0, 1 - beta h) per pair; Liu et al. 2023 (arXiv 2309.06657), hinge-norm."""
    return relu(1 - beta * pairs.log_ratio_difference_B)


def robust_dpo(pairs: PairLogprobs, *, beta: float, label_smoothing: float) -> Tensor:
    """Return DPO's loss debiased for flipped labels, per pair; Chowdhury et al. 2024 (arXiv 2403.00409), eq. 12.

    Its mean over labels that are flipped with probability ``label_smoothing`` is the DPO loss of the true ones.
    """
    h_B = beta * pairs.log_ratio_difference_B
    unscaled_B = -(1 - label_smoothing) * logsigmoid(h_B) + label_smoothing * logsigmoid(-h_B)
    return unscaled_B / (1 - 2 * label_smoothing)


def sigmoid_norm(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return DPO's loss per pair on mean log-ratios: each completion's is divided by its number of tokens.

    Length-normalised DPO of Lambert et al. 2024 (arXiv 2411.15124); there beta is 5.
    """
    return -logsigmoid(beta * pairs.mean_ratio_difference_B)


def exo_pair(pairs: PairLogprobs, *, beta: float, label_smoothing: float) -> Tensor:
    """Return EXO's loss per pair, the reverse KL from the labels to the policy; Ji et al. 2024 (arXiv 2402.00856).

    Equation 16 with K = 2: labels (1 - epsilon, epsilon), policy (sigma(h), sigma(-h)); DPO's is the forward KL.
    """
    h_B = beta * pairs.log_ratio_difference_B
    chosen_B = torch.sigmoid(h_B) * (logsigmoid(h_B) - math.log1p(-label_smoothing))
    return chosen_B + torch.sigmoid(-h_B) * (logsigmoid(-h_B) - math.log(label_smoothing))


def nca_pair(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return NCA's loss per pair, in its form for two completions; Chen et al. 2024 (arXiv 2402.05369)."""
    chosen_B, rejected_B = pairs.rewards(beta)
    return -logsigmoid(chosen_B) - 0.5 * (logsigmoid(-chosen_B) + logsigmoid(-rejected_B))


def bco_pair(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return BCO's loss per pair without its shift, summed over the two; Jung et al. 2024 (arXiv 2404.04656)."""
    chosen_B, rejected_B = pairs.rewards(beta)
    return -logsigmoid(chosen_B) - logsigmoid(-rejected_B)


def sppo_hard(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return SPPO's loss per pair with winning probabilities 1 and 0; Wu et al. 2024 (arXiv 2405.00675).

    Equation 4.7 with eta = 1/beta: log-ratios are drawn to 1/(2 beta) and -1/(2 beta).
    """
    return (pairs.chosen_ratio_B - 1 / (2 * beta)) ** 2 + (pairs.rejected_ratio_B + 1 / (2 * beta)) ** 2


def apo_zero(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return APO-zero's loss per pair: chosen up, rejected down; D'Oosterlinck 2024 (arXiv 2408.06266), eq. 7."""
    chosen_B, rejected_B = pairs.rewards(beta)
    return 1 - torch.sigmoid(chosen_B) + torch.sigmoid(rejected_B)


def apo_down(pairs: PairLogprobs, *, beta: float) -> Tensor:
    """Return APO-down's loss per pair: both down, rejected more; D'Oosterlinck 2024 (arXiv 2408.06266), eq. 8."""
    chosen_B, rejected_B = pairs.rewards(beta)
    return torch.sigmoid(chosen_B) + 1 - torch.sigmoid(chosen_B - rejected_B)


def discopop(pairs: PairLogprobs, *, beta: float, tau: float) -> Tensor:
    """Return DiscoPOP's loss per pair, logistic and exponential mixed; Lu et al. 2024 (arXiv 2406.08414), eq. 5."""
    h_B = beta * pairs.log_ratio_difference_B
    share_B = torch.sigmoid(h_B / tau)
    return -(1 - share_B) * logsigmoid(h_B) + share_B * torch.exp(-h_B)


# Losses over policy and reference log-probabilities, by name; keyword arguments are the method's parameters.
PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "ipo_avg": ipo_avg,
    "hinge": hinge,
    "robust_dpo": robust_dpo,
    "sigmoid_norm": sigmoid_norm,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "sdpo": dpo,
}

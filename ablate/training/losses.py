"""Losses of offline preference methods: pure functions of tensors, one a method, one value a pair.

Notation: pi the policy, ref the frozen reference, c the chosen and r the rejected completion, sigma the logistic
function. ``_B`` marks a vector over the pairs of a batch; log-probabilities are sums over the completion's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
        return (self.chosen_B - self.reference_chosen_B) - (self.rejected_B - self.reference_rejected_B)


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
    chosen_B = (pairs.chosen_B - pairs.reference_chosen_B) / pairs.chosen_tokens_B
    rejected_B = (pairs.rejected_B - pairs.reference_rejected_B) / pairs.rejected_tokens_B
    return (chosen_B - rejected_B - 1 / (2 * beta)) ** 2


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


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """Return -log sigma(r_c - r_r) per pair of scores; Ouyang et al. 2022 (arXiv 2203.02155), eq. 1 with K = 2."""
    return -logsigmoid(chosen_B - rejected_B)


# Losses over policy and reference log-probabilities, by name; keyword arguments are the method's parameters.
PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "ipo_avg": ipo_avg,
    "hinge": hinge,
    "robust_dpo": robust_dpo,
    "sdpo": dpo,
}

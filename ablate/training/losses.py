"""Losses of offline preference methods: pure functions of tensors, one a method, one value a pair.

Notation: pi the policy, ref the frozen reference, c the chosen and r the rejected completion, sigma the logistic
function. ``_B`` marks a vector over the pairs of a batch; log-probabilities are sums over the completion's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


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


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """Return -log sigma(r_c - r_r) per pair of scores; Ouyang et al. 2022 (arXiv 2203.02155), eq. 1 with K = 2."""
    return -logsigmoid(chosen_B - rejected_B)


# Losses over policy and reference log-probabilities, by name; keyword arguments are the method's parameters.
PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo,
}

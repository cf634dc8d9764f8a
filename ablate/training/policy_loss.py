"""The losses of policy gradients per token, as pure functions of [B, R] tensors.

They are reduced by ``advantages.masked_mean`` with the count (tokens, responses) of the whole mini-batch, so that
neither padding nor micro-batches nor a smaller mini-batch changes the scale of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """What a policy's losses are made of, each [B, R]; only ``logps_BR`` has gradients.

    ``old_logps_BR`` are those of the policy that sampled; ``mask_BR`` is 1 on response tokens, the EOS included.
    """

    logps_BR: Tensor
    old_logps_BR: Tensor
    reference_logps_BR: Tensor
    advantages_BR: Tensor
    mask_BR: Tensor


def clipped_policy_losses(logps_BR: Tensor, old_logps_BR: Tensor, advantages_BR: Tensor, clip_range: float) -> Tensor:
    """Return -min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = pi / pi_old, [B, R] (eq. 7)."""
    ratios_BR = (logps_BR - old_logps_BR).exp()
    clipped_BR = ratios_BR.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -(ratios_BR * advantages_BR).minimum(clipped_BR * advantages_BR)


def clipped_response_losses(terms: Terms, clip_range: float | None) -> tuple[Tensor, Tensor]:
    """Return the clipped losses of whole responses, spread evenly over their tokens, and where the clip is active.

    rho = pi(y) / pi_old(y) is one ratio a response. Before the first update its gradient is that of REINFORCE,
    -A grad log pi(y) (Ahmadian et al. 2024, eq. 5); None does not clip it.
    """
    mask_BR = terms.mask_BR.bool()
    lengths_B1 = terms.mask_BR.sum(-1, keepdim=True)
    log_ratios_B1 = (terms.logps_BR - terms.old_logps_BR).where(mask_BR, 0.0).sum(-1, keepdim=True)
    zeros_B1, advantages_B1 = log_ratios_B1.new_zeros(log_ratios_B1.shape), terms.advantages_BR[:, :1]
    given = (log_ratios_B1, zeros_B1, advantages_B1, float("inf") if clip_range is None else clip_range)
    losses_BR = (clipped_policy_losses(*given) / lengths_B1).expand(mask_BR.shape)
    return losses_BR, policy_clipped(*given).expand(mask_BR.shape)


def clipped_value_losses(values_BR: Tensor, old_values_BR: Tensor, returns_BR: Tensor, clip_range: float) -> Tensor:
    """Return max((V - R)^2, (V_clip - R)^2) / 2, [B, R]; V_clip is V moved at most ``clip_range`` from V_old."""
    moved_BR = old_values_BR + (values_BR - old_values_BR).clamp(-clip_range, clip_range)
    return 0.5 * ((values_BR - returns_BR) ** 2).maximum((moved_BR - returns_BR) ** 2)


def policy_clipped(logps_BR: Tensor, old_logps_BR: Tensor, advantages_BR: Tensor, clip_range: float) -> Tensor:
    """Return 1.0 where the clipped branch is the active one (no gradient flows there), [B, R]."""
    ratios_BR = (logps_BR - old_logps_BR).exp()
    above_BR = (ratios_BR > 1.0 + clip_range) & (advantages_BR > 0)
    below_BR = (ratios_BR < 1.0 - clip_range) & (advantages_BR < 0)
    return (above_BR | below_BR).to(logps_BR.dtype)


def value_clipped(values_BR: Tensor, old_values_BR: Tensor, returns_BR: Tensor, clip_range: float) -> Tensor:
    """Return 1.0 where the clipped square is the larger one, [B, R]."""
    moved_BR = old_values_BR + (values_BR - old_values_BR).clamp(-clip_range, clip_range)
    return ((moved_BR - returns_BR) ** 2 > (values_BR - returns_BR) ** 2).to(values_BR.dtype)


def approximate_kl(logps_BR: Tensor, old_logps_BR: Tensor) -> Tensor:
    """Return (rho - 1) - log rho, [B, R]: unbiased for KL(pi_old || pi), never negative (Schulman 2020, "k3").

    With the reference's log-probabilities first and the policy's second it is GRPO's estimate of KL(pi || pi_ref).
    """
    log_ratios_BR = logps_BR - old_logps_BR
    return log_ratios_BR.expm1() - log_ratios_BR

"""Rewards and advantages of token-level policy gradients, as pure functions of padded tensors.

Shapes: B episodes, R response positions (padding on the right). ``mask_BR`` is 1 on response tokens, the EOS
included; whatever stands at padding never enters a result, and results are 0 there.
"""

from __future__ import annotations

from torch import Tensor


def masked_mean(values_BR: Tensor, mask_BR: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Return sum(values * mask) / ``count``, a scalar; ``count`` defaults to the number of masked-in tokens.

    A chunk of a larger batch passes the larger batch's count: the chunks' results then add up to its mean.
    """
    total = values_BR.where(mask_BR.bool(), 0.0).sum()
    return total / (mask_BR.sum() if count is None else count)


def masked_variance(values_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return the population variance over the masked-in tokens, a scalar."""
    return masked_mean((values_BR - masked_mean(values_BR, mask_BR)) ** 2, mask_BR)


def whiten(values_BR: Tensor, mask_BR: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Return (x - mean) / sqrt(variance + ``epsilon``) with both over all masked-in tokens of the batch; 0 at padding.

    The batch is the whole rollout, never a mini- or micro-batch: an advantage must not depend on its neighbours
    in an optimiser step.
    """
    mean, variance = masked_mean(values_BR, mask_BR), masked_variance(values_BR, mask_BR)
    return ((values_BR - mean) / (variance + epsilon).sqrt()).where(mask_BR.bool(), 0.0)


def last_token(mask_BR: Tensor) -> Tensor:
    """Return the index of each row's last response token, [B]."""
    return mask_BR.sum(-1) - 1


def penalised_rewards(
    logps_BR: Tensor, reference_logps_BR: Tensor, scores_B: Tensor, mask_BR: Tensor, kl_coefficient: float
) -> Tensor:
    """Return r_t = -beta (log pi(y_t) - log pi_ref(y_t)), plus the score at the last response token; [B, R].

    The penalty's sum over an episode is an unbiased one-sample estimate of beta KL(pi || pi_ref) of the sequence
    (Ouyang et al. 2022, eq. 2; per token as in Ziegler et al. 2019).
    """
    rewards_BR = -kl_coefficient * (logps_BR - reference_logps_BR).where(mask_BR.bool(), 0.0)
    return rewards_BR.scatter_add(-1, last_token(mask_BR).unsqueeze(-1), scores_B.to(rewards_BR.dtype).unsqueeze(-1))


def generalised_advantages(
    rewards_BR: Tensor, values_BR: Tensor, mask_BR: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, each [B, R] (Schulman et al. 2016, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  return_t = A_t + V_t, where V_t is
    the value of the state before response token t. After the last token the episode is over: V = 0, also for a
    response that was cut at the length limit (its missing-EOS reward is its outcome).
    """
    mask_BR = mask_BR.to(values_BR.dtype)
    rewards_BR, values_BR = rewards_BR * mask_BR, values_BR * mask_BR
    advantages_BR = values_BR.new_zeros(values_BR.shape)
    next_values_B = values_BR.new_zeros(len(values_BR))
    next_advantages_B = next_values_B
    for t in reversed(range(values_BR.shape[1])):
        deltas_B = rewards_BR[:, t] + gamma * next_values_B - values_BR[:, t]
        next_advantages_B = (deltas_B + gamma * gae_lambda * next_advantages_B) * mask_BR[:, t]
        advantages_BR[:, t] = next_advantages_B
        next_values_B = values_BR[:, t]
    return advantages_BR, advantages_BR + values_BR


def regularised_outcomes(
    logps_NR: Tensor, reference_logps_NR: Tensor, outcomes_N: Tensor, mask_NR: Tensor, kl_coefficient: float
) -> Tensor:
    """Return R = r - beta (log pi(y) - log pi_ref(y)) of whole responses, [N] (Ahmadian et al. 2024, eq. 3)."""
    log_ratios_N = (logps_NR - reference_logps_NR).where(mask_NR.bool(), 0.0).sum(-1)
    return outcomes_N - kl_coefficient * log_ratios_N


def leave_one_out(rewards_N: Tensor, group: int) -> Tensor:
    """Return each reward minus the mean of the others of its group, [N] (Ahmadian et al. 2024, section 3.2).

    A group is ``group`` rewards one after another. In float64: equal rewards give exactly 0.
    """
    rewards_BK = rewards_N.double().view(-1, group)
    others_BK = (rewards_BK.sum(-1, keepdim=True) - rewards_BK) / (group - 1)
    return (rewards_BK - others_BK).flatten().to(rewards_N.dtype)


def group_normalised(rewards_N: Tensor, group: int, epsilon: float | None) -> Tensor:
    """Return (r - mean) / (sd + ``epsilon``) within each group, [N] (Shao et al. 2024, section 4.1.2).

    The standard deviation has k - 1 in its denominator; with ``epsilon`` null the difference is not divided
    (Dr. GRPO). In float64: equal rewards give exactly 0.
    """
    rewards_BK = rewards_N.double().view(-1, group)
    advantages_BK = rewards_BK - rewards_BK.mean(-1, keepdim=True)
    if epsilon is not None:
        advantages_BK = advantages_BK / (rewards_BK.std(-1, keepdim=True) + epsilon)
    return advantages_BK.flatten().to(rewards_N.dtype)

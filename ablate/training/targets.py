"""The advantage rules: what the update of each policy-gradient method learns from, made of a rollout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ablate.algorithms.grpo import GRPOParameters
from ablate.algorithms.ppo import PPOParameters
from ablate.algorithms.rloo import RLOOParameters
from ablate.errors import StageError
from ablate.training.advantages import (
    generalised_advantages,
    group_normalised,
    leave_one_out,
    penalised_rewards,
    regularised_outcomes,
    whiten,
)
from ablate.training.experience import Rollout


@dataclass(frozen=True)
class Targets:
    """What the update learns from, [N, R]: ``advantages_NR`` as they enter the loss, ``returns_NR`` for the critic."""

    advantages_NR: Tensor
    returns_NR: Tensor | None = None


def gae_targets(rollout: Rollout, parameters: PPOParameters) -> Targets:
    """PPO's rule: rewards with a per-token KL penalty, GAE, advantages whitened over the whole rollout."""
    if rollout.values_NR is None:
        raise StageError("generalised advantages need a value network, and this method has none")
    mask_NR = rollout.mask_NR
    rewards_NR = penalised_rewards(
        rollout.logps_NR, rollout.reference_logps_NR, rollout.outcomes_N, mask_NR, parameters.kl_coefficient
    )
    advantages_NR, returns_NR = generalised_advantages(
        rewards_NR, rollout.values_NR, mask_NR, parameters.gamma, parameters.gae_lambda
    )
    if parameters.whiten_advantages:
        advantages_NR = whiten(advantages_NR, mask_NR)
    return Targets(advantages_NR, returns_NR)


def leave_one_out_targets(rollout: Rollout, parameters: RLOOParameters) -> Targets:
    """RLOO's rule: the reward of the whole response, KL penalty included, against the mean of the prompt's others."""
    rewards_N = regularised_outcomes(
        rollout.logps_NR, rollout.reference_logps_NR, rollout.outcomes_N, rollout.mask_NR, parameters.kl_coefficient
    )
    return _of_responses(leave_one_out(rewards_N, rollout.group), rollout)


def group_targets(rollout: Rollout, parameters: GRPOParameters) -> Targets:
    """GRPO's rule: the reward without a penalty, normalised among the responses to its prompt."""
    epsilon = parameters.deviation_epsilon if parameters.scale_by_deviation else None
    return _of_responses(group_normalised(rollout.outcomes_N, rollout.group, epsilon), rollout)


def _of_responses(advantages_N: Tensor, rollout: Rollout) -> Targets:
    """Give every token of a response the response's advantage."""
    return Targets(advantages_N.unsqueeze(-1) * rollout.mask_NR)

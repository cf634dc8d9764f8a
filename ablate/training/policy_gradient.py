"""The policy-gradient methods: the advantages and losses of each, and the stage that trains by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablate.algorithms.grpo import GRPOParameters
from ablate.algorithms.on_policy import PolicyGradientParameters
from ablate.algorithms.ppo import PPOParameters
from ablate.algorithms.registry import find_method
from ablate.algorithms.rloo import RLOOParameters
from ablate.context import StageContext
from ablate.errors import UnknownNameError
from ablate.training.advantages import masked_mean, masked_variance
from ablate.training.devices import autocast
from ablate.training.experience import Rollout, padded
from ablate.training.on_policy import OnPolicyStage, OnPolicyTrainer
from ablate.training.placement import tuned_value
from ablate.training.policy_loss import (
    Terms,
    approximate_kl,
    clipped_policy_losses,
    clipped_response_losses,
    clipped_value_losses,
    policy_clipped,
    value_clipped,
)
from ablate.training.policy_update import PolicyGradientLearner
from ablate.training.score_head import response_values
from ablate.training.shared_network import make_networks
from ablate.training.targets import Targets, gae_targets, group_targets, leave_one_out_targets


@dataclass(frozen=True)
class PPOLearner(PolicyGradientLearner[PPOParameters]):
    """PPO: token-level clipped ratios with generalised advantages, and a value network of its own."""

    def targets(self, rollout: Rollout) -> Targets:
        """Return advantages and returns (see ``gae_targets``)."""
        return gae_targets(rollout, self.parameters)

    def losses(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Return the clipped losses of the tokens."""
        given = (terms.logps_BR, terms.old_logps_BR, terms.advantages_BR, self.parameters.clip_range)
        return clipped_policy_losses(*given), policy_clipped(*given)

    def count(self, mask_MR: Tensor) -> float:
        """Return the tokens: the loss is their mean."""
        return float(mask_MR.sum())

    def value_backward(self, rollout: Rollout, targets: Targets, chunk: list[int], mask_MR: Tensor) -> dict[str, float]:
        """Add the gradients of the clipped value loss, a mean over the mini-batch's tokens."""
        if rollout.values_NR is None or targets.returns_NR is None:
            return {}
        batch = padded(rollout.episodes, chunk, self.pad_id, self.limits)
        mask_BR, tokens = batch.response_mask_BR, float(mask_MR.sum())
        cut = self.cut(chunk, mask_BR.shape[1])
        with autocast(self.limits.device, self.parameters.dtype):
            values_BR = response_values(self.networks["value"].trained, batch)
        old_BR, returns_BR = cut(rollout.values_NR), cut(targets.returns_NR)
        losses_BR = clipped_value_losses(values_BR, old_BR, returns_BR, self.parameters.value_clip_range)
        loss = masked_mean(losses_BR, mask_BR, tokens)
        self.networks["value"].backward(self.parameters.value_coefficient * loss)
        with torch.no_grad():
            clipped_BR = value_clipped(values_BR, old_BR, returns_BR, self.parameters.value_clip_range)
            fraction = masked_mean(clipped_BR, mask_BR, tokens).item()
        return {"value_loss": loss.item(), "value_clip_fraction": fraction}

    def total(self, means: dict[str, float]) -> float:
        """Return policy loss and weighted value loss together."""
        return means["policy_loss"] + self.parameters.value_coefficient * means.get("value_loss", 0.0)

    def statistics(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """Return those of all policy gradients, and the share of the returns' variance that the values explain."""
        statistics = super().statistics(rollout, targets)
        if rollout.values_NR is not None and targets.returns_NR is not None:
            spread = masked_variance(targets.returns_NR, rollout.mask_NR)
            residual = masked_variance(targets.returns_NR - rollout.values_NR, rollout.mask_NR)
            statistics["explained_variance"] = float(1.0 - residual / spread)
        return statistics


@dataclass(frozen=True)
class RLOOLearner(PolicyGradientLearner[RLOOParameters]):
    """RLOO: one clipped ratio a response, leave-one-out advantages."""

    def targets(self, rollout: Rollout) -> Targets:
        """Return the advantages (see ``leave_one_out_targets``)."""
        return leave_one_out_targets(rollout, self.parameters)

    def losses(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Return the responses' losses, spread over their tokens."""
        return clipped_response_losses(terms, self.parameters.clip_range)

    def count(self, mask_MR: Tensor) -> float:
        """Return the responses: the loss is their mean."""
        return float(len(mask_MR))


@dataclass(frozen=True)
class GRPOLearner(PolicyGradientLearner[GRPOParameters]):
    """GRPO: token-level clipped ratios with group-normalised advantages, the KL estimate in the loss."""

    def targets(self, rollout: Rollout) -> Targets:
        """Return the advantages (see ``group_targets``)."""
        return group_targets(rollout, self.parameters)

    def losses(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Return the clipped losses and KL penalties of the tokens, over the length that normalises them."""
        parameters = self.parameters
        given = (terms.logps_BR, terms.old_logps_BR, terms.advantages_BR, parameters.clip_range)
        penalties_BR = approximate_kl(terms.reference_logps_BR, terms.logps_BR)
        losses_BR = clipped_policy_losses(*given) + parameters.kl_coefficient * penalties_BR
        lengths: dict[str, Tensor | int] = {
            "response": terms.mask_BR.sum(-1, keepdim=True),
            "limit": parameters.max_response_length,
            "token": 1,
        }
        return losses_BR / lengths[parameters.length_normalisation], policy_clipped(*given)

    def count(self, mask_MR: Tensor) -> float:
        """Return the responses, or the tokens where ``length_normalisation`` asks for their mean."""
        return float(mask_MR.sum() if self.parameters.length_normalisation == "token" else len(mask_MR))


LEARNERS: Mapping[str, type[PolicyGradientLearner[Any]]] = {
    "ppo": PPOLearner,
    "rloo": RLOOLearner,
    "grpo": GRPOLearner,
}
"""By the name of the method."""


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy against a reward; write ``model/``, ``history.jsonl`` and ``samples.jsonl``.

    A value network starts from the reward model, or where a formula or a verifier scores, from the policy; it is not
    published.
    """
    name = context.config["algorithm"]
    if name not in LEARNERS:
        raise UnknownNameError("policy-gradient method", name, LEARNERS)
    parameters = find_method(name).parameters.model_validate(context.config["parameters"])
    assert isinstance(parameters, PolicyGradientParameters)
    by_name = "reward" in context.config
    stage = OnPolicyStage.open(context, parameters, others=() if by_name else ("reward_model",))
    seed = int(context.config["seed"])
    trained, rates = {"policy": stage.policy}, {"policy": parameters.learning_rate}
    if isinstance(parameters, PPOParameters):
        trained["value"] = tuned_value(context, parameters, seed, stage.limits.device)
        rates["value"] = parameters.value_learning_rate or parameters.learning_rate
    networks = make_networks(trained, rates, parameters, context.resources)
    # what can't be read of one response to a prompt is the mean of its others; of the step's, where it has no other
    alone = parameters.responses_per_prompt == 1
    judged = stage.reader("reward", parameters.prompts_per_step if alone else parameters.responses_per_prompt)
    score = judged or stage.judge("reward", parameters.dtype, trained.get("value"))
    trainer = OnPolicyTrainer(
        LEARNERS[name](networks, parameters, stage.tokens.pad, stage.limits),
        seed,
        reference=stage.reference,
        score=score,
        compare=None if judged else score,
        judged=judged,
        gold=stage.gold,
        labels_per_response=int(by_name),
        prompts=stage.prompts,
        tokens=stage.tokens,
        events=context.events,
    )
    return stage.train(trainer)

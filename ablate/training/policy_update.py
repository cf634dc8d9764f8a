"""The update of policy-gradient methods: losses of a mini-batch's tokens, and what holds before any weight changes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ablate.algorithms.on_policy import PolicyGradientParameters
from ablate.errors import StageError
from ablate.training.advantages import masked_mean
from ablate.training.devices import autocast
from ablate.training.experience import Rollout, padded
from ablate.training.learner import Learner
from ablate.training.policy_loss import Terms, approximate_kl
from ablate.training.rollouts import response_logits, response_logprobs
from ablate.training.targets import Targets

# Largest |log ratio| allowed before the first weight of a step changes. It is 0 where both passes use one kernel;
# a GPU may choose other kernels with gradients than without.
RATIO_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}

G = TypeVar("G", bound=PolicyGradientParameters)


@dataclass(frozen=True)
class PolicyGradientLearner(Learner[G, Targets], Generic[G]):
    """A policy that learns from advantages; methods differ in the advantage rule and in the losses."""

    @abstractmethod
    def losses(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Return the losses of a micro-batch's tokens and 1.0 where the clip is active, each [B, R]."""

    @abstractmethod
    def count(self, mask_MR: Tensor) -> float:
        """Return what the sum of a mini-batch's losses is divided by: its tokens, or its responses."""

    @property
    def divisible(self) -> bool:
        """A token's loss depends on its own row alone."""
        return True

    def statistics(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """Return ``rlhf_reward``: mean outcome - beta KL."""
        kl_N = (rollout.logps_NR - rollout.reference_logps_NR).sum(-1)
        return {"rlhf_reward": float((rollout.outcomes_N - self.parameters.kl_coefficient * kl_N).mean())}

    def backward(
        self, rollout: Rollout, targets: Targets, rows: list[int], *, step: int, first: bool
    ) -> dict[str, float]:
        """Add the gradients of the mini-batch ``rows``; before any update every ratio must be 1."""
        mask_MR = rollout.mask_NR[rows]
        sums: dict[str, float] = {}
        for chunk in self.limits.chunks(rollout.episodes, rows):
            loss, means = self.policy_loss(rollout, targets, chunk, mask_MR)
            largest = means.pop("largest_log_ratio")
            if first:
                self._check_ratio(largest, step, rollout, rows)
            self.policy.backward(loss)
            for name, value in {**means, **self.value_backward(rollout, targets, chunk, mask_MR)}.items():
                sums[name] = sums.get(name, 0.0) + value
        return {"loss": self.total(sums), **sums}

    def policy_loss(
        self, rollout: Rollout, targets: Targets, chunk: list[int], mask_MR: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return a micro-batch's part of the loss of the mini-batch of ``mask_MR``, and of what is logged of it."""
        batch = padded(rollout.episodes, chunk, self.pad_id, self.limits)
        mask_BR = batch.response_mask_BR
        cut = self.cut(chunk, mask_BR.shape[1])
        with autocast(self.limits.device, self.parameters.dtype):
            logits_BRV = response_logits(self.policy.trained, batch)
            logps_BR = response_logprobs(logits_BRV, batch, self.parameters.temperature)
        old_BR, tokens = cut(rollout.logps_NR), float(mask_MR.sum())
        losses_BR, clipped_BR = self.losses(
            Terms(logps_BR, old_BR, cut(rollout.reference_logps_NR), cut(targets.advantages_NR), mask_BR)
        )
        loss = masked_mean(losses_BR, mask_BR, self.count(mask_MR))
        with torch.no_grad():
            means = {
                "policy_loss": loss.item(),
                "approx_kl": masked_mean(approximate_kl(logps_BR, old_BR), mask_BR, tokens).item(),
                "policy_clip_fraction": masked_mean(clipped_BR, mask_BR, tokens).item(),
                "largest_log_ratio": (logps_BR - old_BR).abs().max().item(),
            }
        return loss, means

    def value_backward(self, rollout: Rollout, targets: Targets, chunk: list[int], mask_MR: Tensor) -> dict[str, float]:
        """Add the gradients of the value network, where the method has one; return what is logged of it."""
        return {}

    def total(self, means: dict[str, float]) -> float:
        """Return the whole loss from the means of its parts."""
        return means["policy_loss"]

    def _check_ratio(self, largest: float, step: int, rollout: Rollout, rows: list[int]) -> None:
        limit = RATIO_TOLERANCE[self.parameters.dtype]
        if not largest <= limit:
            raise StageError(
                f"step {step}: before any update the log ratio of policy to behaviour policy is {largest:.3g}, "
                f"not 0 (allowed: {limit:g}); prompts {rollout.prompt_ids(rows)}",
                hint="the two passes differ: dropout, temperature, padding, position ids or numeric type",
            )

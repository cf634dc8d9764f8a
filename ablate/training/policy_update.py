"""The update of an on-policy step: mini-batches of clipped losses, one AdamW a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ablate.algorithms.ppo import PPOParameters
from ablate.errors import StageError
from ablate.training.adamw import adamw, load_state, save_state
from ablate.training.advantages import masked_mean
from ablate.training.devices import autocast
from ablate.training.experience import PassLimits, Rollout, Targets, padded
from ablate.training.policy_loss import (
    approximate_kl,
    clipped_policy_losses,
    clipped_value_losses,
    policy_clipped,
    value_clipped,
)
from ablate.training.rollouts import response_logits, response_logprobs
from ablate.training.score_head import response_values

# Largest |log ratio| allowed before the first weight of a step changes. It is 0 where both passes use one kernel;
# a GPU may choose other kernels with gradients than without.
RATIO_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


class Network:
    """A model with its AdamW. It stays in evaluation mode: dropout would make the ratio differ from 1."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.model = model.eval()
        self.peak = learning_rate
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimiser = adamw(self.parameters, learning_rate, weight_decay)

    def step(self, factor: float, max_norm: float) -> float:
        """Clip the gradients to ``max_norm``, step at ``factor`` times the peak rate; return the unclipped norm."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm))
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * factor
        if norm == norm and norm != float("inf"):  # else the caller stops the run; the weights stay sound
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def save(self, folder: Path, name: str) -> None:
        """Write weights and AdamW's moments."""
        save_state(folder, name, self.parameters, self.optimiser)

    def load(self, folder: Path, name: str) -> None:
        """Restore what ``save`` wrote."""
        load_state(folder, name, self.parameters, self.optimiser)


@dataclass(frozen=True)
class Learner:
    """Policy, optional value network, and how they learn from mini-batches."""

    policy: Network
    value: Network | None
    parameters: PPOParameters
    pad_id: int
    limits: PassLimits

    def update(
        self, rollout: Rollout, targets: Targets, rows: list[int], factor: float, *, step: int, first: bool
    ) -> dict[str, float]:
        """Take one optimiser step on the mini-batch ``rows`` at ``factor`` of the peak rates; return its means.

        ``first``: no weight has changed since the rollout, so every ratio must be 1. Raises StageError where a ratio
        is not, or where a loss or a gradient is not finite.
        """
        count = rollout.mask_NR[rows].sum()
        sums: dict[str, float] = {}
        for chunk in self.limits.chunks(rollout.episodes, rows):
            policy_loss, policy_means = self._policy_loss(rollout, targets, chunk, count)
            largest = policy_means.pop("largest_log_ratio")
            if first:
                self._check_ratio(largest, step, rollout, rows)
            torch.autograd.backward(policy_loss)
            value_means = self._value_backward(rollout, targets, chunk, count)
            for name, value in {**policy_means, **value_means}.items():
                sums[name] = sums.get(name, 0.0) + value
        sums["loss"] = sums["policy_loss"] + self.parameters.value_coefficient * sums.get("value_loss", 0.0)
        sums["policy_grad_norm"] = self.policy.step(factor, self.parameters.max_grad_norm)
        if self.value is not None:
            sums["value_grad_norm"] = self.value.step(factor, self.parameters.max_grad_norm)
        return self._finite(sums, step, rollout, rows)

    def _policy_loss(
        self, rollout: Rollout, targets: Targets, chunk: list[int], count: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        batch = padded(rollout.episodes, chunk, self.pad_id, self.limits)
        mask_BR = batch.response_mask_BR
        cut = self._cut(chunk, mask_BR.shape[1])
        with autocast(self.limits.device, self.parameters.dtype):
            logits_BRV = response_logits(self.policy.model, batch)
            logps_BR = response_logprobs(logits_BRV, batch, self.parameters.temperature)
        old_BR, advantages_BR = cut(rollout.logps_NR), cut(targets.advantages_NR)
        losses_BR = clipped_policy_losses(logps_BR, old_BR, advantages_BR, self.parameters.clip_range)
        loss = masked_mean(losses_BR, mask_BR, float(count))
        with torch.no_grad():
            clipped_BR = policy_clipped(logps_BR, old_BR, advantages_BR, self.parameters.clip_range)
            means = {
                "policy_loss": loss.item(),
                "approx_kl": masked_mean(approximate_kl(logps_BR, old_BR), mask_BR, float(count)).item(),
                "policy_clip_fraction": masked_mean(clipped_BR, mask_BR, float(count)).item(),
                "largest_log_ratio": (logps_BR - old_BR).abs().max().item(),
            }
        return loss, means

    def _value_backward(self, rollout: Rollout, targets: Targets, chunk: list[int], count: Tensor) -> dict[str, float]:
        if self.value is None or rollout.values_NR is None or targets.returns_NR is None:
            return {}
        batch = padded(rollout.episodes, chunk, self.pad_id, self.limits)
        mask_BR = batch.response_mask_BR
        cut = self._cut(chunk, mask_BR.shape[1])
        with autocast(self.limits.device, self.parameters.dtype):
            values_BR = response_values(self.value.model, batch)
        old_BR, returns_BR = cut(rollout.values_NR), cut(targets.returns_NR)
        losses_BR = clipped_value_losses(values_BR, old_BR, returns_BR, self.parameters.value_clip_range)
        loss = masked_mean(losses_BR, mask_BR, float(count))
        torch.autograd.backward(self.parameters.value_coefficient * loss)
        with torch.no_grad():
            clipped_BR = value_clipped(values_BR, old_BR, returns_BR, self.parameters.value_clip_range)
            fraction = masked_mean(clipped_BR, mask_BR, float(count)).item()
        return {"value_loss": loss.item(), "value_clip_fraction": fraction}

    def _cut(self, chunk: list[int], width: int) -> Callable[[Tensor], Tensor]:
        """Return a function that takes a micro-batch's rows and response columns out of a rollout's tensor."""
        return lambda values_NR: values_NR[chunk, :width].to(self.limits.device)

    def _check_ratio(self, largest: float, step: int, rollout: Rollout, rows: list[int]) -> None:
        limit = RATIO_TOLERANCE[self.parameters.dtype]
        if not largest <= limit:
            raise StageError(
                f"step {step}: before any update the log ratio of policy to behaviour policy is {largest:.3g}, "
                f"not 0 (allowed: {limit:g}); prompts {rollout.prompt_ids(rows)}",
                hint="the two passes differ: dropout, temperature, padding, position ids or numeric type",
            )

    def _finite(self, sums: dict[str, float], step: int, rollout: Rollout, rows: list[int]) -> dict[str, float]:
        bad = [name for name, value in sums.items() if value != value or value in (float("inf"), float("-inf"))]
        if bad:
            raise StageError(
                f"step {step}: {', '.join(bad)} not finite; prompts of the mini-batch: {rollout.prompt_ids(rows)}",
                hint="lower the learning rate, or look at the scores of these prompts",
            )
        return sums

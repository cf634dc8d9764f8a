"""Objectives of offline preference methods: from one forward pass over pairs to a loss and the values logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ablate.errors import StageError
from ablate.training.logprobs import completion_logprobs
from ablate.training.losses import PairLogprobs
from ablate.training.reference_free import PolicyLogprobs


@dataclass(frozen=True)
class PreferenceObjective:
    """A loss of policy and reference over one forward pass of chosen and rejected together.

    ``tolerance`` is how far the first loss may be from that of a policy equal to its reference; None where the
    reference is another model, which the first loss says nothing about.
    """

    loss: Callable[[PairLogprobs], Tensor]
    beta: float
    tolerance: float | None

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and implicit rewards beta (log pi - log ref), accuracy, margin and log pi."""
        pairs = with_reference(batch, *completion_logprobs(model, batch).chunk(2))
        return self.loss(pairs), logged(pairs, self.beta)

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require the loss of a policy equal to its reference, if it is: ln 2 for DPO."""
        equal = with_reference(batch, batch["reference_chosen"], batch["reference_rejected"])
        require_start(loss_U, self.loss(equal), self.tolerance)


@dataclass(frozen=True)
class ReferenceFreeObjective:
    """A loss of the policy alone over one forward pass of chosen and rejected together."""

    loss: Callable[[PolicyLogprobs], Tensor]
    beta: float

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and rewards beta (mean log pi), accuracy, margin and log pi, a sum."""
        chosen_B, rejected_B = completion_logprobs(model, batch).chunk(2)
        pairs = PolicyLogprobs(chosen_B, rejected_B, *completion_tokens(batch))
        return self.loss(pairs), logged(pairs, self.beta)

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: without a reference no value is known beforehand."""


def with_reference(batch: dict[str, Any], chosen_B: Tensor, rejected_B: Tensor) -> PairLogprobs:
    """Return what a loss reads, from the policy's log-probabilities and the reference's, which are in the batch."""
    reference = batch["reference_chosen"], batch["reference_rejected"]
    return PairLogprobs(chosen_B, rejected_B, *reference, *completion_tokens(batch))


def completion_tokens(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the token counts of the chosen and of the rejected completions, each [B]."""
    chosen_B, rejected_B = batch["completion_mask"].sum(-1).chunk(2)
    return chosen_B, rejected_B


def logged(pairs: PairLogprobs | PolicyLogprobs, beta: float) -> dict[str, Tensor]:
    """Return the detached values per pair that every method's training curve has."""
    chosen_reward_B, rejected_reward_B = (reward_B.detach() for reward_B in pairs.rewards(beta))
    return {
        "rewards/chosen": chosen_reward_B,
        "rewards/rejected": rejected_reward_B,
        "rewards/accuracy": (chosen_reward_B > rejected_reward_B).float(),
        "rewards/margin": chosen_reward_B - rejected_reward_B,
        "logps/chosen": pairs.chosen_B.detach(),
        "logps/rejected": pairs.rejected_B.detach(),
    }


def require_start(loss_U: Tensor, equal_U: Tensor, tolerance: float | None) -> None:
    """Raise StageError unless the first loss is ``equal_U``, that of a policy equal to its reference, on average.

    Nothing is required without a ``tolerance``.
    """
    if tolerance is None:
        return
    expected, found = float(equal_U.mean()), float(loss_U.mean())
    if not abs(found - expected) <= tolerance:
        raise StageError(
            f"before the first step the loss is {found:.6f}, but a policy equal to its reference gives "
            f"{expected:.6f} (tolerance {tolerance:g}): the reference log-probabilities were not made by "
            "this policy from these tokens",
            hint="remove the reference_logprobs stage and run again",
        )

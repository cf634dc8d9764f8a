"""What a loss takes from the whole effective batch, found in forward passes before its first micro-batch trains.

So the loss is that of the effective batch, whatever the micro-batch and the number of processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ablate.training.logprobs import completion_logprobs
from ablate.training.losses import PairLogprobs
from ablate.training.objectives import PreferenceObjective, logged, require_start, with_reference

Batch = dict[str, Any]
Columns = dict[str, Tensor]
Gather = Callable[[Tensor], tuple[Tensor, slice]]
"""From a process's values [M] to those of all processes [N], and where among them its own are."""


class Coupling(ABC):
    """Finds the columns [B] that a loss takes beside a batch of pairs, by the names of its arguments."""

    logged: ClassVar[tuple[str, ...]] = ()
    """Columns that the training curve has, too."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        """What lasts from step to step, as JSON values; it travels in the checkpoints."""

    @abstractmethod
    def columns(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> list[Columns]:
        """Return the columns of each micro-batch of an effective batch; called once a step, without gradients."""


class KLBaseline(Coupling):
    """KTO's z0: the mean log-ratio of the batch's prompts with completions of other prompts, at least 0, in nats."""

    logged = ("kl_B",)

    def columns(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> list[Columns]:
        """Return the batch's z0 for every pair."""
        parts = [policy_pairs(model, batch["mismatched"]) for batch in batches]
        ratios_N, _ = gather(torch.cat([ratio_B for pairs in parts for ratio_B in pairs.rewards(beta=1.0)]))
        kl = float(ratios_N.double().mean().clamp_min(0.0))
        return [{"kl_B": torch.full_like(pairs.chosen_B, kl)} for pairs in parts]


class RunningShift(Coupling):
    """BCO's delta: the mean implicit reward of all completions trained on, this batch's included."""

    logged = ("shift_B",)

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.state = {"completions": 0, "sum": 0.0}

    def columns(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> list[Columns]:
        """Take the batch into the mean and return it for every pair."""
        parts = [policy_pairs(model, batch) for batch in batches]
        rewards_N, _ = gather(torch.cat([reward_B for pairs in parts for reward_B in pairs.rewards(self.beta)]))
        self.state["completions"] += len(rewards_N)
        self.state["sum"] += float(rewards_N.double().sum())
        mean = self.state["sum"] / self.state["completions"]
        return [{"shift_B": torch.full_like(pairs.chosen_B, mean)} for pairs in parts]


class PairQuantiles(Coupling):
    """Paired AOT's: the reference's log ref(c) - log ref(r) whose rank is that of the policy's difference."""

    def columns(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> list[Columns]:
        """Return the reference's difference of equal rank for every pair."""
        parts = [policy_pairs(model, batch) for batch in batches]
        policy_N, own = gather(torch.cat([pairs.chosen_B - pairs.rejected_B for pairs in parts]))
        reference_N, _ = gather(torch.cat([pairs.reference_chosen_B - pairs.reference_rejected_B for pairs in parts]))
        return _split(parts, quantile_B=of_equal_rank(policy_N, reference_N)[own])


class CompletionQuantiles(Coupling):
    """Unpaired AOT's: for a log-ratio of a chosen completion the rejected one of equal rank, and the other way."""

    def columns(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> list[Columns]:
        """Return both log-ratios of equal rank for every pair."""
        parts = [policy_pairs(model, batch) for batch in batches]
        chosen_N, own = gather(torch.cat([pairs.chosen_ratio_B for pairs in parts]))
        rejected_N, _ = gather(torch.cat([pairs.rejected_ratio_B for pairs in parts]))
        return _split(
            parts,
            rejected_quantile_B=of_equal_rank(chosen_N, rejected_N)[own],
            chosen_quantile_B=of_equal_rank(rejected_N, chosen_N)[own],
        )


def of_equal_rank(values_N: Tensor, others_N: Tensor) -> Tensor:
    """Return, for each of ``values``, the one of ``others`` that has its rank; equal values keep their order."""
    ranks_N = values_N.argsort(stable=True).argsort()
    return others_N.sort().values[ranks_N]


def policy_pairs(model: nn.Module, batch: Batch) -> PairLogprobs:
    """Return what a loss reads of a micro-batch."""
    chosen_B, rejected_B = completion_logprobs(model, batch).chunk(2)
    return with_reference(batch, chosen_B, rejected_B)


def _split(parts: Sequence[PairLogprobs], **columns_M: Tensor) -> list[Columns]:
    sizes = [len(pairs.chosen_B) for pairs in parts]
    split = {name: torch.split(column_M, sizes) for name, column_M in columns_M.items()}
    return [{name: parts_B[index] for name, parts_B in split.items()} for index in range(len(parts))]


@dataclass(frozen=True)
class CoupledObjective(PreferenceObjective):
    """A loss of policy and reference that takes something from the whole effective batch."""

    loss: Callable[..., Tensor]
    coupling: Coupling

    def couple(self, model: nn.Module, batches: Sequence[Batch], gather: Gather) -> None:
        """Put into each micro-batch of an effective batch, as ``coupling``, what the loss takes from all of them."""
        for batch, columns in zip(batches, self.coupling.columns(model, batches, gather), strict=True):
            batch["coupling"] = columns

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Columns]:
        """Return the loss per pair, and what every method logs and the coupling adds."""
        pairs, columns = policy_pairs(model, batch), batch["coupling"]
        added = {name.removesuffix("_B"): columns[name] for name in self.coupling.logged}
        return self.loss(pairs, **columns), {**logged(pairs, self.beta), **added}

    def check_start(self, loss_U: Tensor, batch: Batch) -> None:
        """Require the loss of a policy equal to its reference, given what the batch has in common."""
        equal = with_reference(batch, batch["reference_chosen"], batch["reference_rejected"])
        require_start(loss_U, self.loss(equal, **batch["coupling"]), self.tolerance)


COUPLINGS: dict[str, Callable[[float], Coupling]] = {
    "kto": lambda beta: KLBaseline(),
    "bco": RunningShift,
    "aot": lambda beta: PairQuantiles(),
    "aot_unpaired": lambda beta: CompletionQuantiles(),
}
"""What the losses of ``batch_losses`` take from their batch, by method; made anew for a run with the method's beta."""

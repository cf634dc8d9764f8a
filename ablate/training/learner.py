"""How an on-policy method learns: networks with their optimisers, and the optimiser step that all methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ablate.algorithms.on_policy import RolloutParameters
from ablate.errors import StageError
from ablate.training.adamw import adamw, load_state, save_state
from ablate.training.distributed import sum_gradients, summed_values
from ablate.training.experience import PassLimits, Rollout

P = TypeVar("P", bound=RolloutParameters)
T = TypeVar("T")
"""What the update of a method reads beside the rollout: advantages, or which response of a pair is the better one."""


class Network:
    """A model with its AdamW. It stays in evaluation mode: dropout would make the ratio differ from 1."""

    shared_out = False
    """Whether every process has a part of what is trained, so that all of them save it together."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.model = model.eval()
        self.peak = learning_rate
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimiser = adamw(self.parameters, learning_rate, weight_decay)

    @property
    def trained(self) -> nn.Module:
        """What passes with gradients go through."""
        return self.model

    def collecting(self) -> AbstractContextManager[None]:
        """Return a context in which the gradients of a step are added up, over any number of passes."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this process's part of a loss."""
        torch.autograd.backward(loss)

    def step(self, factor: float, max_norm: float) -> float:
        """Clip the gradients to ``max_norm``, step at ``factor`` times the peak rate; return the unclipped norm."""
        self._set_rate(factor)
        sum_gradients(self.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm))
        if norm == norm and norm != float("inf"):  # else the caller stops the run; the weights stay sound
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def end(self) -> None:
        """Leave the model as an ordinary one when training has ended."""

    def _set_rate(self, factor: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * factor

    def save(self, folder: Path, name: str) -> None:
        """Write weights and AdamW's moments."""
        save_state(folder, name, self.parameters, self.optimiser)

    def load(self, folder: Path, name: str) -> None:
        """Restore what ``save`` wrote."""
        load_state(folder, name, self.parameters, self.optimiser)


@dataclass(frozen=True)
class Learner(ABC, Generic[P, T]):
    """What a method makes of a rollout, and how its networks learn from that.

    ``networks`` are those that are trained, ``policy`` among them, by the names that checkpoints and logs call them.
    """

    networks: Mapping[str, Network]
    parameters: P
    pad_id: int
    limits: PassLimits

    @abstractmethod
    def targets(self, rollout: Rollout) -> T:
        """Return what the updates of a step learn from."""

    @abstractmethod
    def statistics(self, rollout: Rollout, targets: T) -> dict[str, float]:
        """Return what is logged of a rollout beside the statistics that all methods have."""

    @abstractmethod
    def backward(self, rollout: Rollout, targets: T, rows: list[int], *, step: int, first: bool) -> dict[str, float]:
        """Add the gradients of the loss of the mini-batch ``rows``, micro-batch by micro-batch; return its means.

        ``first``: no weight has changed since the rollout. Raises StageError where what must hold then does not.
        """

    @property
    def divisible(self) -> bool:
        """Whether ``backward`` takes this process's share of the mini-batch, so that several can train together."""
        return False

    @property
    def learns_from_scoring(self) -> bool:
        """Whether scoring a step's responses changes what a checkpoint holds of the learner."""
        return False

    @property
    def unit(self) -> int:
        """Episodes, one after another, that a mini-batch never separates; mini-batches count units."""
        return 1

    def weight(self, targets: T, rows: list[int]) -> int:
        """Return what a mini-batch counts for in a step's means: its episodes, unless its own are over others."""
        return len(rows)

    @property
    def policy(self) -> Network:
        """The network that samples."""
        return self.networks["policy"]

    def update(
        self, rollout: Rollout, targets: T, rows: list[int], factor: float, *, step: int, first: bool
    ) -> dict[str, float]:
        """Take one optimiser step on the mini-batch ``rows`` at ``factor`` of the peak rates; return its means.

        Raises StageError where a loss or a gradient is not finite.
        """
        with ExitStack() as passes:
            for network in self.networks.values():
                passes.enter_context(network.collecting())
            parts = self.backward(rollout, targets, rows, step=step, first=first)
        means = summed_values(parts)
        for name, network in self.networks.items():
            means[f"{name}_grad_norm"] = network.step(factor, self.parameters.max_grad_norm)
        bad = [name for name, value in means.items() if value != value or value in (float("inf"), float("-inf"))]
        if bad:
            raise StageError(
                f"step {step}: {', '.join(bad)} not finite; prompts of the mini-batch: {rollout.prompt_ids(rows)}",
                hint="lower the learning rate, or look at the scores of these prompts",
            )
        return means

    def save(self, folder: Path) -> None:
        """Write what a checkpoint holds of the learner: its networks."""
        for name, network in self.networks.items():
            network.save(folder, name)

    @property
    def shared_out(self) -> bool:
        """Whether every process has a part of the networks."""
        return any(network.shared_out for network in self.networks.values())

    def save_part(self, folder: Path) -> None:
        """Write what a process but the main one has of a checkpoint: its parts of networks that are shared out."""
        for name, network in self.networks.items():
            if network.shared_out:
                network.save(folder, name)

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        for name, network in self.networks.items():
            network.load(folder, name)

    def cut(self, chunk: list[int], width: int) -> Callable[[Tensor], Tensor]:
        """Return a function that takes a micro-batch's rows and response columns out of a rollout's tensor."""
        return lambda values_NR: values_NR[chunk, :width].to(self.limits.device)

"""A network of an on-policy method whose gradients and moments lie over several processes: DeepSpeed's ZeRO-2."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ablate.algorithms.on_policy import RolloutParameters
from ablate.context import Resources
from ablate.errors import StageError
from ablate.training.devices import stage_device
from ablate.training.distributed import barrier, world
from ablate.training.learner import Network
from ablate.training.zero import config, require_deepspeed, sharding_of, unwrapped


def make_networks(
    models: Mapping[str, nn.Module], rates: Mapping[str, float], parameters: RolloutParameters, resources: Resources
) -> dict[str, Network]:
    """Return the networks of ``models`` with their learning rates, as the processes of a stage share them.

    Raises StageError where weights would have to be shared out, too: sampling and scoring take whole models.
    """
    gpu = stage_device(resources).type == "cuda"
    sharding = sharding_of(list(models.values()), parameters.dtype, resources.sharding, gpu=gpu)
    if sharding == "zero3":
        raise StageError(
            "an on-policy method needs its models whole on every process, and zero3 shares their weights out",
            hint="zero2, an adapter (lora_rank), or GPUs with more memory",
        )
    if sharding == "ddp":
        return {name: Network(model, rates[name], parameters.weight_decay) for name, model in models.items()}
    return {name: SharedNetwork(model, rates[name], parameters) for name, model in models.items()}


class SharedNetwork(Network):
    """A network that DeepSpeed trains: weights are whole on every process, gradients and moments are not.

    Processes make as many passes as their share of a mini-batch takes: gradients are exchanged once a step.
    """

    shared_out = True

    def __init__(self, model: nn.Module, learning_rate: float, parameters: RolloutParameters) -> None:
        super().__init__(model, learning_rate, parameters.weight_decay)
        deepspeed = require_deepspeed("zero2")
        given = config("zero2", parameters.dtype, max_grad_norm=parameters.max_grad_norm)
        self.engine: Any = deepspeed.initialize(model=model, optimizer=self.optimiser, config=given)[0]
        self.engine.eval()

    @property
    def trained(self) -> nn.Module:
        """DeepSpeed's engine, which sees every pass."""
        engine: nn.Module = self.engine
        return engine

    def collecting(self) -> AbstractContextManager[None]:
        """Return a context at whose end the gradients are exchanged."""
        context: AbstractContextManager[None] = self.engine.coalesce_grad_reduction()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part; the engine takes the mean over processes, and parts add up."""
        self.engine.backward(world() * loss)

    def step(self, factor: float, max_norm: float) -> float:
        """Step at ``factor`` times the peak rate; return the norm of the gradients before they were clipped."""
        self._set_rate(factor)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def save(self, folder: Path, name: str) -> None:
        """Write this process's part of weights and moments."""
        self.engine.save_checkpoint(str(folder), tag=name)
        barrier()

    def load(self, folder: Path, name: str) -> None:
        """Restore what ``save`` wrote."""
        self.engine.load_checkpoint(str(folder), tag=name)

    def end(self) -> None:
        """Give the model its weights back."""
        unwrapped(self.engine)

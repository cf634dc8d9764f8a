"""Where the models of an on-policy method are: policy and value network are trained, reference and reward are frozen.

Under an adapter a frozen model is the trained one with its adapter off where both start from the same folder, so that
two models may stand for four. Else it is a model of its own: on the device of the trained ones, in host memory between
its uses, or on another GPU. A use is a pass over all of a step's responses (``at_work``), however many micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ablate.catalogs.parameters import OptimiserParameters
from ablate.context import Resources, StageContext
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_reward_model
from ablate.training.devices import stage_device
from ablate.training.lora import FrozenBase, adapter_off, has_adapter, with_adapter, with_adapter_off
from ablate.training.seeding import derive_seed


@dataclass(frozen=True)
class FrozenPlace:
    """Where a frozen model is between its uses (``home``) and when it computes (``at``)."""

    home: torch.device
    at: torch.device

    @classmethod
    def of(cls, resources: Resources) -> FrozenPlace:
        """Return the place that ``resources.frozen`` names; raises StageError where there is no other GPU."""
        device = stage_device(resources)
        if resources.frozen == "host":
            return cls(torch.device("cpu"), device)
        if resources.frozen == "other-gpu":
            if len(resources.gpus) <= resources.processes:
                needed = resources.processes + 1
                raise StageError(
                    f"frozen models on another GPU need {needed} GPUs a stage; it has {len(resources.gpus)}"
                )
            last = torch.device("cuda", len(resources.gpus) - 1)
            return cls(last, last)
        return cls(device, device)

    @contextmanager
    def at_work(self, model: nn.Module) -> Iterator[None]:
        """Have ``model`` where it computes for the duration of the block, and at home afterwards."""
        model.to(self.at)
        try:
            yield
        finally:
            model.to(self.home)


class Placed(nn.Module):
    """A frozen model whose inputs come from another device, for calls within ``at_work``.

    It has no parameters of its own, so that moving it with the trained ones moves nothing.
    """

    def __init__(self, model: nn.Module, place: FrozenPlace) -> None:
        super().__init__()
        self._model = (model.to(place.home).eval().requires_grad_(False),)
        self.place = place

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self._model[0]

    def at_work(self) -> AbstractContextManager[None]:
        """Have the model where it computes for the duration of the block."""
        return self.place.at_work(self._model[0])

    def forward(self, **inputs: Any) -> Any:
        """Return the model's output for tensors of any device, its logits on theirs."""
        device = inputs["input_ids"].device
        there = {name: v.to(self.place.at) if isinstance(v, Tensor) else v for name, v in inputs.items()}
        output = self._model[0](**there)
        output.logits = output.logits.to(device)
        return output


def at_work(model: nn.Module) -> AbstractContextManager[None]:
    """Have a frozen model where it computes for the duration of the block: around all micro-batches of a pass."""
    return model.at_work() if isinstance(model, Placed) else nullcontext()


@contextmanager
def sampled_from(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what samples as a frozen model for the duration of the block: a transformers model, where it computes."""
    if isinstance(model, FrozenBase):
        with adapter_off(model.adapted):
            yield model.adapted
    elif isinstance(model, Placed):
        with model.at_work():
            yield model.model
    else:
        yield model


def frozen_reference(context: StageContext, policy: PreTrainedModel, parameters: OptimiserParameters) -> nn.Module:
    """Return the reference: the policy with its adapter off where both start from the same folder, else a model."""
    path = context.inputs["reference"]
    if has_adapter(policy) and path == context.inputs["policy"]:
        return FrozenBase(policy)
    place = FrozenPlace.of(context.resources)
    reference = load_policy(path, quantisation=parameters.quantisation)
    return reference if place.home == place.at == stage_device(context.resources) else Placed(reference, place)


def tuned_value(
    context: StageContext, parameters: OptimiserParameters, seed: int, device: torch.device
) -> PreTrainedModel:
    """Load the value network: the reward model, or the policy with a new head that says 0 everywhere.

    It is under an adapter where the parameters say so.
    """
    by_model = "reward_model" in context.inputs
    source, head_seed = ("reward_model", None) if by_model else ("policy", 0)
    model = load_reward_model(context.inputs[source], head_seed=head_seed, quantisation=parameters.quantisation)
    if not by_model:
        with torch.no_grad():
            model.get_parameter("score.weight").zero_()
    model = with_adapter(model, parameters, derive_seed(seed, "value"))
    model.to(device)  # type: ignore[arg-type]
    return model


def frozen_score(
    path: Path,
    value: PreTrainedModel | None,
    resources: Resources,
    score_of: Callable[[nn.Module, torch.device], Callable[..., Tensor]],
) -> Callable[..., Tensor]:
    """Return the score function of the reward model of ``path``: the value network with its adapter off, or a model.

    ``value`` was loaded from the same path. ``score_of`` makes a score function from a model and its device.
    """
    device = stage_device(resources)
    if value is not None and has_adapter(value):
        return with_adapter_off(value, score_of(value, device))
    place = FrozenPlace.of(resources)
    model: nn.Module = load_reward_model(path)
    model.to(place.home).eval().requires_grad_(False)
    score = score_of(model, place.at)

    def moved(episodes: Sequence[Any]) -> Tensor:
        with place.at_work(model):
            return score(episodes)

    return moved

"""Training steps of a researcher's own: run as planned, and what they may build on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ablate.algorithms.base import TrainingParameters
from ablate.catalogs.functions import import_own
from ablate.context import StageContext
from ablate.errors import StageError
from ablate.training.checkpoints import Cadence
from ablate.training.distributed import is_main
from ablate.training.preference import preference_objective, train_pairs


def run(context: StageContext) -> dict[str, Any]:
    """Do what the step says; its file must be the one that the stage was planned with."""
    step = context.locations["step"]
    function = import_own(step, "the training step", digest=context.config["code"]["step"])
    if not callable(function):
        raise StageError(f"the training step {step} is not a function")
    summary: dict[str, Any] = function(context)
    if is_main() and not (context.output / "model").is_dir():
        raise StageError(f"the training step {step} wrote no model", hint="write it into context.output / 'model'")
    return summary


def train_with_loss(
    context: StageContext, loss: Callable[..., Tensor], parameters: TrainingParameters
) -> dict[str, Any]:
    """Train a policy on pairs with a loss of yours in the trainer of ablate's own, and write all that theirs write.

    ``loss(pairs, *, …)`` takes :class:`ablate.training.losses.PairLogprobs` and, as keyword arguments, parameters of
    those names; it returns one value for each pair. The method needs ``pairs`` and ``reference_logprobs``.
    """
    objective = preference_objective(loss, parameters, own_reference="reference" not in context.inputs)
    return train_pairs(context, objective, parameters, Cadence(context.resources.checkpoint_seconds))

"""The one trainer of all methods that learn from a fixed set of examples: they differ in the objective alone."""

from __future__ import annotations

from transformers import PreTrainedModel

from ablate.algorithms.base import TrainingParameters
from ablate.context import StageContext
from ablate.training.checkpoints import Cadence
from ablate.training.collate import Collator
from ablate.training.history import History
from ablate.training.trainer import ExampleTrainer, Objective, TrainingRun


class OfflineTrainer(ExampleTrainer):
    """transformers' Trainer over pairs or rankings: the completions of an example share one forward pass."""


def train_offline(
    context: StageContext,
    model: PreTrainedModel,
    objective: Objective,
    collator: Collator,
    parameters: TrainingParameters,
    *,
    cadence: Cadence,
    floor: float = 0.0,
) -> History:
    """Train ``model`` in place and return the training curve; resumes from this stage's newest whole checkpoint.

    The model must have been loaded without dropout, so that its log-probabilities are those of the reference pass.
    ``floor`` is the final learning rate as a share of the peak.
    """
    run = TrainingRun.of(context, cadence)
    OfflineTrainer(model, objective, collator.examples, collator, parameters, run, floor=floor).fit(
        context.previous_work
    )
    return run.history

"""The one trainer of all methods that learn from a fixed set of pairs: they differ in the objective alone."""

from __future__ import annotations

from transformers import PreTrainedModel

from ablate.algorithms.base import TrainingParameters
from ablate.context import StageContext
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator
from ablate.training.history import History
from ablate.training.trainer import ExampleTrainer, Objective, TrainingRun


class OfflineTrainer(ExampleTrainer):
    """transformers' Trainer over pairs: chosen and rejected are two sequences of one forward pass."""

    sequences = 2


def train_offline(
    context: StageContext,
    model: PreTrainedModel,
    objective: Objective,
    collator: PairCollator,
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
    OfflineTrainer(model, objective, collator.pairs, collator, parameters, run, floor=floor).fit(context.previous_work)
    return run.history

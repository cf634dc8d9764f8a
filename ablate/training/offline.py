"""The one trainer of all methods that learn from a fixed set of examples: they differ in the objective alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ablate.algorithms.base import TrainingParameters
from ablate.context import StageContext, read_json, write_json
from ablate.errors import StageError
from ablate.training.checkpoints import Cadence
from ablate.training.collate import Collator
from ablate.training.coupling import CoupledObjective
from ablate.training.devices import autocast
from ablate.training.distributed import gathered, rank, world
from ablate.training.history import History
from ablate.training.trainer import ExampleTrainer, Objective, TrainingRun

COUPLING_FILE = "coupling.json"


class OfflineTrainer(ExampleTrainer):
    """transformers' Trainer over pairs or rankings: the completions of an example share one forward pass."""

    _marked: Mapping[str, Any] = MappingProxyType({})

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Return the micro-batches of an effective batch, with what a coupled loss takes from all of them."""
        batches, units = super().get_batch_samples(epoch_iterator, num_batches, device)
        if isinstance(self.objective, CoupledObjective) and batches:
            counted = [batch for batch in batches if not batch["idle"]]
            with torch.no_grad(), autocast(self.args.device, self.parameters.dtype):
                self.objective.couple(self.model_wrapped, counted, self._gather)
            for batch in (batch for batch in batches if batch["idle"]):  # its loss counts nothing
                batch["coupling"] = {name: value_B[:1] for name, value_B in counted[0]["coupling"].items()}
        return batches, units

    def _gather(self, values_M: Tensor) -> tuple[Tensor, slice]:
        processes = gathered(values_M.tolist())
        start = sum(map(len, processes[: rank()]))
        return values_M.new_tensor(list(chain(*processes))), slice(start, start + len(values_M))

    def require_a_share_for_all(self) -> None:
        """Raise StageError where a coupled loss meets a last batch that has no example for some process."""
        rest = len(self.examples) % self.parameters.batch_size
        if isinstance(self.objective, CoupledObjective) and 0 < rest < world():
            raise StageError(
                f"the last batch has {rest} examples, too few for {world()} processes: this loss is over whole batches",
                hint="use fewer processes, or a batch_size that leaves another rest",
            )

    def save_progress(self, checkpoint: Path) -> None:
        """Write what is ours of a checkpoint: the history, and what a coupled loss keeps from step to step."""
        super().save_progress(checkpoint)
        if isinstance(self.objective, CoupledObjective):
            write_json(checkpoint / COUPLING_FILE, self.objective.coupling.state)

    def load_progress(self, checkpoint: Path) -> None:
        """Go back to what ``save_progress`` wrote."""
        super().load_progress(checkpoint)
        if isinstance(self.objective, CoupledObjective):
            self.objective.coupling.state = read_json(checkpoint / COUPLING_FILE)

    def mark_progress(self) -> None:
        """Remember the history and the coupling as they are before a step's batches are coupled."""
        super().mark_progress()
        if isinstance(self.objective, CoupledObjective):
            self._marked = dict(self.objective.coupling.state)

    def undo_progress(self) -> None:
        """Go back to what ``mark_progress`` remembered."""
        super().undo_progress()
        if isinstance(self.objective, CoupledObjective):
            self.objective.coupling.state = dict(self._marked)


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

    The model has no dropout, as ``ablate.models.loading`` loads all, so that its log-probabilities are those of the
    reference pass. ``floor`` is the final learning rate as a share of the peak.
    """
    run = TrainingRun.of(context, cadence)
    trainer = OfflineTrainer(model, objective, collator.examples, collator, parameters, run, floor=floor)
    trainer.require_a_share_for_all()
    trainer.fit(context.previous_work)
    return run.history

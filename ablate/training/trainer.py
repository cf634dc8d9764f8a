"""The training loop of all methods that learn from a fixed set of examples: transformers' Trainer, made exact.

What it adds: batches that do not depend on the micro-batch, checkpoints that count only when whole, a bitwise exact
resume, a history that survives it, and a stop at the first loss or gradient that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ablate.algorithms.base import TrainingParameters
from ablate.context import Sharding, StageContext
from ablate.errors import StageError
from ablate.models.properties import require_positions
from ablate.training.batches import MicroBatches, micro_batch_size
from ablate.training.checkpoints import PREFIX, Cadence, CheckpointClock, checkpoint_step, latest_checkpoint
from ablate.training.collate import Examples
from ablate.training.devices import autocast, room_for, stage_device
from ablate.training.distributed import barrier, from_main, gathered, is_main, world
from ablate.training.history import History
from ablate.training.lora import has_adapter, load_trained, save_trained
from ablate.training.schedules import learning_rate_factor
from ablate.training.seeding import derive_seed
from ablate.training.zero import config, mark, require_deepspeed, require_mark, sharding_of, unwrapped

LOGGING_STEPS = 10
ADAPTER_FILE = "trained.safetensors"


class Objective(Protocol):
    """A loss over a batch, from the model's forward pass to one value a unit: a pair, or a labelled token."""

    def units(self, batch: dict[str, Any]) -> int:
        """Return the units in a batch: what the mean of the loss is over."""
        ...

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per unit [U], with gradients, and detached values per unit [U] to be logged as means."""
        ...

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Raise StageError if the loss before the first optimiser step is not what it must be."""
        ...


@dataclass(frozen=True)
class TrainingRun:
    """Where and how a stage trains: its seed, its folder of checkpoints, its history and its resources."""

    seed: int
    work: Path
    history: History
    cadence: Cadence
    micro_batch: int | None = None
    use_cpu: bool = True
    sharding: Sharding | None = None

    @classmethod
    def of(cls, context: StageContext, cadence: Cadence) -> TrainingRun:
        """Return the run of a stage, with a new history that is forwarded to the stage's events."""
        return cls(
            seed=int(context.config["seed"]),
            work=context.work,
            history=History(context.events),
            cadence=cadence,
            micro_batch=context.resources.micro_batch,
            use_cpu=stage_device(context.resources).type == "cpu",
            sharding=context.resources.sharding,
        )


class ExampleTrainer(Trainer):
    """transformers' Trainer, or a class between it and ours, with our batches, loss, schedule and checkpoints.

    The collator makes batches from row numbers and puts these into ``rows``. ``floor`` is the final learning rate as
    a share of the peak; ``options`` go to the class below.
    """

    objective: Objective

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        examples: Examples,
        collator: Callable[[Sequence[int]], dict[str, Any]],
        parameters: TrainingParameters,
        run: TrainingRun,
        *,
        floor: float = 0.0,
        **options: Any,
    ) -> None:
        self.objective = objective
        self.examples = examples
        self.parameters = parameters
        self.run = run
        self.floor = floor
        self.clock = CheckpointClock(run.cadence)
        self._batch_rows: list[int] = []
        self._steps_an_epoch = -(-len(examples) // parameters.batch_size)
        self._policy, self._use_cache = model, model.config.use_cache
        self.sharding = sharding_of([model], parameters.dtype, run.sharding, gpu=not run.use_cpu)
        vocabulary = int(model.config.get_text_config().vocab_size)
        longest = int(examples.lengths_N.max())
        require_positions(model, longest)
        tokens = examples.sequences * longest
        size = micro_batch_size(_batch_share(parameters.batch_size), tokens, vocabulary, run.micro_batch)
        if run.history.events is not None and is_main():  # what a supervisor halves if memory runs out unsaid
            run.history.events.log(micro_batch=size, sharding=self.sharding)
        self.batches = MicroBatches(
            examples.lengths_N,
            batch_size=parameters.batch_size,
            micro_batch=size,
            seed=run.seed,
            kept_order=examples.kept_order,
        )
        super().__init__(
            model=model,
            args=self.make_arguments(_common_arguments(parameters, size, run) | self._shared_out(size)),
            data_collator=partial(_collated, collator),
            callbacks=[_Checkpointing(self.clock)],
            **{"train_dataset": examples, **options},
        )
        self.remove_callback(PrinterCallback)
        # The loss below is already a share of the whole effective batch: no division by accumulation steps.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True

    def make_arguments(self, common: dict[str, Any]) -> TrainingArguments:
        """Return the arguments of the class below, from those that all trainers share."""
        return TrainingArguments(**common)

    def _shared_out(self, size: int) -> dict[str, Any]:
        """Return the arguments that let DeepSpeed share the model out, where it is to."""
        if self.sharding == "ddp":
            return {}
        require_deepspeed(self.sharding)
        parameters = self.parameters
        accumulation = _batch_share(parameters.batch_size) // size
        norm = parameters.max_grad_norm
        return {"deepspeed": config(self.sharding, parameters.dtype, size, accumulation, max_grad_norm=norm)}

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this process's micro-batches: the sampler has dealt them out."""
        loader = DataLoader(self.examples, batch_sampler=self.batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Return the schedule of the parameters over ``num_training_steps``."""
        parameters, floor = self.parameters, self.floor

        def factor(step: int) -> float:
            return learning_rate_factor(
                step,
                steps=num_training_steps,
                warmup_ratio=parameters.warmup_ratio,
                shape=parameters.scheduler,
                floor=floor,
            )

        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(cast(torch.optim.Optimizer, optimizer or self.optimizer), factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> int:
        """Return the units of the effective batch over all processes: what the mean of the loss divides by."""
        self.mark_progress()
        counted = [batch for batch in batch_samples if not batch["idle"]]
        self._batch_rows = [row for batch in counted for row in batch["rows"].tolist()]
        return int(sum(gathered(sum(self.objective.units(batch) for batch in counted))))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return this micro-batch's part of the mean loss over the effective batch."""
        with autocast(self.args.device, self.parameters.dtype):
            loss_U, values = self.objective(model, inputs)
        history, units = self.run.history, len(loss_U)
        if not units or inputs["idle"]:  # conversations without a labelled token; a pass that others need company in
            return 0.0 * loss_U.sum()
        means = torch.stack([value.float().mean() for value in (loss_U.detach(), *values.values())]).tolist()
        self.require_finite("loss", means[0], inputs["rows"].tolist())
        if self.state.global_step == 0 and history.empty:
            self.objective.check_start(loss_U.detach(), inputs)
        history.add(units, **dict(zip(("loss", *values), means, strict=True)))
        # Gradients are averaged over processes, so each process's part is scaled up by their number.
        scale: float = world() / int(num_items_in_batch or units)
        return scale * loss_U.sum()

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        value = float(norm)
        self.require_finite("gradient norm", value, self._batch_rows)
        self.run.history.add(1, grad_norm=value)
        return norm

    def require_finite(self, what: str, value: float, rows: Sequence[int]) -> None:
        """Raise StageError with the step and the ids of the batch for a ``value`` that is not finite."""
        if math.isfinite(value):
            return
        ids = [self.examples.ids[row] for row in rows]
        listed = ", ".join(ids[:8]) + (f", … ({len(ids)} in all)" if len(ids) > 8 else "")
        raise StageError(
            f"the {what} is {value} at step {self.state.global_step + 1}; training stops. Rows of the batch: {listed}",
            hint="lower learning_rate, raise warmup_ratio, or use dtype float32; then look at these rows",
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting parameters at each step costs more than a step of a tiny model."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record the means since the last logged step; the Trainer's own sums do not survive a resume."""
        if "learning_rate" in logs:
            self.record(learning_rate=logs["learning_rate"])

    def record(self, **values: float) -> None:
        """Log the collected means at the current step, if there are any."""
        self.run.history.bring_together()
        if means := self.run.history.means():
            epoch = self.state.global_step / self._steps_an_epoch  # the Trainer's own depends on the micro-batch
            self.run.history.log(self.state.global_step, **means, **values, epoch=round(epoch, 6))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the weights into a checkpoint; under an adapter the trained ones alone, as the others never change."""
        if not has_adapter(self._policy):
            super()._save(output_dir, state_dict)
        elif self.args.should_save and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_trained(self._policy, Path(output_dir) / ADAPTER_FILE)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint; those that are shared out lie among what DeepSpeed writes."""
        if self.sharding == "ddp":
            super().save_model(output_dir, _internal_call)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if has_adapter(self._policy):
            load_trained(self._policy, Path(resume_from_checkpoint) / ADAPTER_FILE)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.run.history.bring_together()

        def write(folder: Path) -> None:
            self.args.output_dir = str(folder)
            try:
                Trainer._save_checkpoint(self, model, trial)  # TRL's own adds a model card
            finally:
                self.args.output_dir = str(self.run.work)
            barrier()  # every process has written its part
            if is_main():
                self.save_progress(folder)

        self.clock.save(self.run.work, self.state.global_step, write)

    def save_progress(self, checkpoint: Path) -> None:
        """Write what is ours of a checkpoint, beside what the Trainer keeps: the history, who shares it."""
        self.run.history.save(checkpoint)
        mark(checkpoint, self.sharding)

    def load_progress(self, checkpoint: Path) -> None:
        """Go back to what ``save_progress`` wrote."""
        self.run.history.load(checkpoint)

    def mark_progress(self) -> None:
        """Remember what ``save_progress`` would write, at the start of a step that may have to be given up."""
        self.run.history.mark()

    def undo_progress(self) -> None:
        """Go back to what ``mark_progress`` remembered."""
        self.run.history.go_back()

    def fit(self, previous_work: Sequence[Path] = ()) -> int:
        """Train to the end, from the newest whole checkpoint if there is one; return the optimiser steps taken."""
        history, resume = self.run.history, None
        history.total_steps = self.parameters.epochs * self._steps_an_epoch
        if checkpoint := latest_checkpoint([self.run.work, *previous_work]):
            require_mark(checkpoint, self.sharding)
            self.load_progress(checkpoint)
            resume = str(checkpoint / f"checkpoint-{checkpoint_step(checkpoint)}")
        with room_for(self.batches.batch_size):
            try:
                self.train(resume_from_checkpoint=resume)
            except StageError as error:
                raise self._stopped(error) from error
        self.record(learning_rate=self._get_learning_rate())
        if self.sharding != "ddp":
            unwrapped(self.model_wrapped)
        self._policy.config.use_cache = self._use_cache  # the Trainer turned it off, but a saved policy generates
        return int(self.state.global_step)

    def _stopped(self, error: StageError) -> StageError:
        """Return the error of a run that can't go on, with where the state before the step is saved.

        It is a checkpoint as any other, since no weight has changed and what the step had collected is undone: a run
        that is started again, with what was wrong put right, goes on from it. Before the first step there is nothing
        to save, and a process among several can't save alone.
        """
        if not self.state.global_step or self.args.world_size > 1:
            return error
        self.undo_progress()
        self._save_checkpoint(self._policy, None)
        saved = self.run.work / f"{PREFIX}{self.state.global_step}"
        return StageError(f"{error.message}; the state before it is saved in {saved}", hint=error.hint)


class _Checkpointing(TrainerCallback):
    """Asks for a checkpoint when the clock says so."""

    def __init__(self, clock: CheckpointClock) -> None:
        self.clock = clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if from_main(self.clock.due(state.global_step, state.max_steps)):
            control.should_save = True


def _batch_share(batch_size: int) -> int:
    """Return the examples of a batch that each process takes; raises StageError where they can't be equally many."""
    if batch_size % world():
        raise StageError(
            f"a batch of {batch_size} examples can't be shared equally by {world()} processes",
            hint="choose a number of processes that divides batch_size",
        )
    return batch_size // world()


def _collated(collator: Callable[[Sequence[int]], dict[str, Any]], rows: Sequence[int]) -> dict[str, Any]:
    """Return the batch of ``rows``; it is ``idle`` where they are numbers of ``MicroBatches`` that count nothing."""
    idle = rows[0] < 0
    return {**collator([~row for row in rows] if idle else rows), "idle": idle}


def _common_arguments(parameters: TrainingParameters, micro_batch: int, run: TrainingRun) -> dict[str, Any]:
    return {
        "output_dir": str(run.work),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": _batch_share(parameters.batch_size) // micro_batch,
        "num_train_epochs": parameters.epochs,
        "learning_rate": parameters.learning_rate,
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "optim": "adamw_torch_fused",
        "seed": derive_seed(run.seed, "trainer"),
        "use_cpu": run.use_cpu,
        "bf16": False,  # the trainer multiplies in bfloat16 itself, as every other stage does
        "save_strategy": "no",
        "logging_steps": LOGGING_STEPS,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }

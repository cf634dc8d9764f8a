"""TRL's trainers of pairs on our tokens, batches and reference passes.

TRL's are the collator, the forward pass, the loss, and its mean over micro-batches, each of which weighs the same. Ours
is what two implementations must share to be compared: the pairs of each batch, KTO's mismatches, the learning rate of
each step, and checkpoints and training curves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from ablate.training.collate import PairCollator
from ablate.training.devices import autocast
from ablate.training.mismatch import MismatchCollator
from ablate.training.objectives import PreferenceObjective, ReferenceFreeObjective
from ablate.training.trainer import ExampleTrainer

LOSS_TYPES = {"dpo": "sigmoid", "sdpo": "sigmoid", "ipo_avg": "ipo", "robust_dpo": "robust"}
"""The names that TRL's DPOTrainer has for losses with another one here."""
LOGGED = {
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
    "rewards/margin": "rewards/margins",
    "logps/chosen": "logps/chosen",
    "logps/rejected": "logps/rejected",
}
"""Values of our training curves, and what TRL calls them."""
SIDES = ("chosen", "rejected")
Batch = dict[str, Any]


@dataclass(frozen=True)
class TRLRows:
    """TRL's collator on row numbers, which travel with the batch.

    ``ours`` has the tokens and what reference passes made of them; ``collate`` makes TRL's batch of ``features``.
    """

    ours: PairCollator
    collate: Callable[[list[dict[str, Any]]], Batch]

    def __call__(self, rows: Sequence[int]) -> Batch:
        """Return the padded batch of these rows."""
        return {**self.collate(self.features(rows)), **self.columns(torch.tensor(rows)), "rows": torch.tensor(rows)}

    def features(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the examples of these rows as TRL's collator takes them: pairs of prompt and completions."""
        pairs = self.ours.pairs
        return [
            {
                "prompt_ids": pairs.prompts[row].tolist(),
                "chosen_ids": pairs.chosen[row].tolist(),
                "rejected_ids": pairs.rejected[row].tolist(),
            }
            for row in rows
        ]

    def columns(self, rows_B: Tensor) -> Batch:
        """Return what reference passes made of these rows, under TRL's names."""
        return {f"ref_{side}_logps": self.ours.columns[f"reference_{side}"][rows_B] for side in SIDES}


class CompletionRows(TRLRows):
    """Single completions, the chosen ones of a batch and then the rejected ones, each with its mismatch."""

    def features(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the completions, desirable or not, with those that were written to other prompts."""
        pairs, others = self.ours.pairs, cast(MismatchCollator, self.ours).other.pairs
        return [
            {
                "prompt_ids": pairs.prompts[row].tolist(),
                "completion_ids": getattr(pairs, side)[row].tolist(),
                "KL_completion_ids": getattr(others, side)[row].tolist(),
                "label": side == "chosen",
            }
            for side in SIDES
            for row in rows
        ]

    def columns(self, rows_B: Tensor) -> Batch:
        """Return the reference's log-probabilities of completions and mismatches, in the order of ``features``."""
        made = {"ref_logps": self.ours, "ref_KL_logps": cast(MismatchCollator, self.ours).other}
        return {
            name: torch.cat([source.columns[f"reference_{side}"][rows_B] for side in SIDES])
            for name, source in made.items()
        }


class TRLTrainer(ExampleTrainer):
    """A trainer of TRL's with the batches, schedule and checkpoints of our other trainers.

    ``whole_batches``: its loss takes something from all that passes at once, so that a batch is never cut.
    """

    theirs: ClassVar[type[Trainer]]
    rows: ClassVar[type[TRLRows]]
    collator: ClassVar[Callable[..., Callable[[list[dict[str, Any]]], Batch]]]
    whole_batches: ClassVar[bool] = False
    curve: ClassVar[dict[str, str]]
    objective: PreferenceObjective | ReferenceFreeObjective
    _metrics: Any

    def __init__(self, algorithm: str, *arguments: Any, **options: Any) -> None:
        self.algorithm = algorithm
        # TRL takes no other type; the rows that are trained on come from our collator.
        super().__init__(*arguments, train_dataset=Dataset.from_dict({"row": [0]}), **options)
        # TRL's loss is a mean over micro-batches, which transformers before 5.19 reads from the second alone.
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = False

    def shared(self, config: type[TrainingArguments], common: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that all of TRL's trainers are given: activations are kept unless on a GPU."""
        # the name that the installed transformers knows; the old one warns in newer versions
        names = {item.name for item in fields(config)}
        checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
        return {**common, checkpointing: not common["use_cpu"]}

    def given(self, **names: str) -> dict[str, Any]:
        """Return those of TRL's arguments ``names`` that the method has a parameter for, which the value is."""
        return {name: getattr(self.parameters, ours) for name, ours in names.items() if hasattr(self.parameters, ours)}

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset  # tokenised already

    def _precompute_ref_logps(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset  # the shared pass has made them

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return TRL's loss of a micro-batch: a mean."""
        rows = inputs["rows"]
        own = {name: value for name, value in inputs.items() if name not in ("rows", "idle")}
        with autocast(self.args.device, self.parameters.dtype):
            loss = cast(Tensor, self.theirs.compute_loss(self, model, own))
        if inputs["idle"]:  # a pass that other processes need company in
            return 0.0 * loss
        self.require_finite("loss", float(loss), rows.tolist())
        if self.state.global_step == 0 and self.run.history.empty:
            self.objective.check_start(loss.detach().unsqueeze(0), {**own, **self.known_at_start(own)})
        self.run.history.add(len(rows), loss=float(loss), **self.observed(own))
        return loss

    def known_at_start(self, batch: Batch) -> Batch:
        """Return what the check of the first loss reads of a batch, under our names."""
        return {f"reference_{side}": batch[f"ref_{side}_logps"] for side in SIDES}

    def observed(self, batch: Batch) -> dict[str, float]:
        """Return the values of the training curve, under our names: TRL's own means, once they are read."""
        metrics = self._metrics["train"]
        shown = {name: metrics[theirs][-1] for name, theirs in self.curve.items()}
        metrics.clear()
        return shown


class PairTrainer(TRLTrainer, DPOTrainer):
    """TRL's DPOTrainer."""

    theirs = DPOTrainer
    rows = TRLRows
    collator = DataCollatorForPreference
    curve: ClassVar[dict[str, str]] = {**LOGGED, "rewards/accuracy": "rewards/accuracies"}

    def make_arguments(self, common: dict[str, Any]) -> DPOConfig:
        """Return TRL's arguments: nothing is prepared or cut."""
        return DPOConfig(
            **self.shared(DPOConfig, common),
            loss_type=[LOSS_TYPES.get(self.algorithm, self.algorithm)],
            precompute_ref_log_probs=True,
            max_length=None,
            **self.given(beta="beta", label_smoothing="label_smoothing", discopop_tau="tau"),
        )


class CompletionTrainer(TRLTrainer, KTOTrainer):
    """TRL's KTOTrainer: z0 is the mean over what passes at once."""

    theirs = KTOTrainer
    rows = CompletionRows
    collator = DataCollatorForUnpairedPreference
    whole_batches = True
    curve: ClassVar[dict[str, str]] = {**LOGGED, "kl": "kl"}

    def make_arguments(self, common: dict[str, Any]) -> KTOConfig:
        """Return TRL's arguments; it counts completions, two a pair."""
        arguments = self.shared(KTOConfig, common)
        arguments["per_device_train_batch_size"] *= 2
        weights = self.given(desirable_weight="desirable_weight", undesirable_weight="undesirable_weight")
        return KTOConfig(
            **arguments, precompute_ref_log_probs=True, max_length=None, **self.given(beta="beta"), **weights
        )

    def known_at_start(self, batch: Batch) -> Batch:
        """Return the reference's side of the pairs, and z0 as TRL has found it."""
        reference = dict(zip(SIDES, batch["ref_logps"].chunk(2), strict=True))
        kl_B = torch.full_like(reference["chosen"], self._metrics["train"]["kl"][-1])
        return {**{f"reference_{side}": logps_B for side, logps_B in reference.items()}, "coupling": {"kl_B": kl_B}}

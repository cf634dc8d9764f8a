"""TRL's DPOTrainer on our tokens, batches and reference pass: the implementation of a loss as an axis.

TRL's are the collator, the forward pass, the loss, and its mean over micro-batches, each of which weighs the same. Ours
is what two implementations must share to be compared: the pairs of each batch, the learning rate of each step, and
checkpoints and training curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from ablate.algorithms.base import TRLPairParameters
from ablate.algorithms.registry import find_method
from ablate.context import StageContext
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, save_model
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairTokens
from ablate.training.devices import autocast
from ablate.training.distributed import world
from ablate.training.losses import PREFERENCE_LOSSES
from ablate.training.objectives import PreferenceObjective
from ablate.training.preference import preference_objective, read_reference
from ablate.training.seeding import seed_everything
from ablate.training.trainer import ExampleTrainer, TrainingRun

LOSS_TYPES = {"dpo": "sigmoid", "sdpo": "sigmoid", "ipo_avg": "ipo", "robust_dpo": "robust"}
"""TRL's names of losses that have another one here."""
LOGGED = {
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
    "rewards/accuracy": "rewards/accuracies",
    "rewards/margin": "rewards/margins",
    "logps/chosen": "logps/chosen",
    "logps/rejected": "logps/rejected",
}
"""Values of our training curves, and what TRL calls them."""


@dataclass(frozen=True)
class TRLObjective(PreferenceObjective):
    """A loss of ours, by which the first one is checked, and TRL's name of it."""

    loss_type: str


@dataclass(frozen=True)
class PairRows:
    """TRL's collator on row numbers; ``rows`` and the reference's log-probabilities travel with the batch."""

    pairs: PairTokens
    reference: dict[str, Tensor]
    collate: DataCollatorForPreference

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        batch = self.collate(
            [
                {
                    "prompt_ids": self.pairs.prompts[row].tolist(),
                    "chosen_ids": self.pairs.chosen[row].tolist(),
                    "rejected_ids": self.pairs.rejected[row].tolist(),
                }
                for row in rows
            ]
        )
        index = torch.tensor(rows)
        logps = {f"ref_{side}_logps": self.reference[f"reference_{side}"][index] for side in ("chosen", "rejected")}
        return {**batch, **logps, "rows": index}


class PairTrainer(ExampleTrainer, DPOTrainer):
    """TRL's DPOTrainer with the batches, schedule and checkpoints of our other trainers."""

    def make_arguments(self, common: dict[str, Any]) -> DPOConfig:
        """Return TRL's arguments: nothing is prepared or cut, and activations are kept unless on a GPU."""
        # the name that the installed transformers knows; the old one warns in newer versions
        names = {item.name for item in fields(DPOConfig)}
        checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
        assert isinstance(self.objective, TRLObjective)
        own: dict[str, Any] = {
            "loss_type": [self.objective.loss_type],
            "precompute_ref_log_probs": True,
            "max_length": None,
            checkpointing: not common["use_cpu"],
        }
        given = {"beta": "beta", "label_smoothing": "label_smoothing", "discopop_tau": "tau"}
        own |= {name: getattr(self.parameters, ours) for name, ours in given.items() if hasattr(self.parameters, ours)}
        return DPOConfig(**common, **own)

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset  # tokenised already

    def _precompute_ref_logps(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset  # the shared pass has made them

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return TRL's loss of a micro-batch: the mean over its pairs."""
        rows = inputs["rows"]
        own = {name: value for name, value in inputs.items() if name not in ("rows", "idle")}
        with autocast(self.args.device, self.parameters.dtype):
            loss: Tensor = DPOTrainer.compute_loss(self, model, own)  # type: ignore[no-untyped-call]
        if inputs["idle"]:  # a pass that other processes need company in
            return 0.0 * loss
        self.observe(loss.detach(), {"rows": rows, **own})
        return loss

    def observe(self, loss: Tensor, batch: dict[str, Any]) -> None:
        """Stop at a loss that is not finite or can't be the first one; keep what the training curve shows."""
        history, value, metrics = self.run.history, float(loss), self._metrics["train"]
        self.require_finite("loss", value, batch["rows"].tolist())
        if self.state.global_step == 0 and history.empty:
            references = {f"reference_{side}": batch[f"ref_{side}_logps"] for side in ("chosen", "rejected")}
            self.objective.check_start(loss.unsqueeze(0), {**batch, **references})
        shown = {name: metrics[theirs][-1] for name, theirs in LOGGED.items()}
        history.add(len(batch["rows"]), loss=value, **shown)
        metrics.clear()


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy with TRL's DPOTrainer; write ``model/`` and ``history.jsonl``."""
    return train_with_trl(context, Cadence(context.resources.checkpoint_seconds))


def train_with_trl(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    algorithm = context.config["algorithm"]
    parameters = find_method(algorithm).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, TRLPairParameters):
        raise StageError(f"TRL's DPOTrainer has no loss {algorithm!r}")
    seed_everything(int(context.config["seed"]))
    pairs = PairTokens.read(context.inputs["data"])
    if world() > 1:
        raise StageError(
            f"TRL weighs every micro-batch the same, so that {world()} processes would change its loss",
            hint="run this stage with one process, or implementation: ablate",
        )
    model, tokenizer = load_policy(context.inputs["policy"]), load_tokenizer(context.inputs["policy"])
    trainer = make_trainer(context, model, tokenizer, pairs, parameters, cadence)
    trainer.fit(context.previous_work)
    save_model(model, tokenizer, context.output / "model")
    trainer.run.history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **trainer.run.history.last}


def make_trainer(
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: PairTokens,
    parameters: TRLPairParameters,
    cadence: Cadence,
) -> PairTrainer:
    """Return TRL's trainer of ``pairs`` with the loss of the stage's algorithm."""
    algorithm = context.config["algorithm"]
    reference = read_reference(context.inputs["reference_logprobs"], pairs)
    own_reference = "reference" not in context.inputs
    ours = preference_objective(PREFERENCE_LOSSES[algorithm], parameters, own_reference=own_reference)
    trainer = PairTrainer(
        model,
        TRLObjective(ours.loss, ours.beta, ours.tolerance, LOSS_TYPES.get(algorithm, algorithm)),
        pairs,
        PairRows(pairs, reference, DataCollatorForPreference(pad_token_id=pad_id(tokenizer))),
        parameters,
        TrainingRun.of(context, cadence),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"row": range(len(pairs))}),  # TRL takes no other type
    )
    # TRL's loss is a mean over micro-batches, which transformers before 5.19 reads from the second alone.
    trainer.loss_is_scaled_for_ga = trainer.model_accepts_loss_kwargs = False
    return trainer

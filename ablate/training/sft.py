"""Supervised fine-tuning: TRL's SFTTrainer with the tokens, batches and exactness of our other trainers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from ablate.algorithms.registry import find_method
from ablate.algorithms.sft import SFTParameters
from ablate.algorithms.steerlm import SteerLMParameters
from ablate.context import StageContext
from ablate.errors import StageError
from ablate.models.conditions import conditioned_template
from ablate.models.loading import load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import ConversationCollator, ConversationTokens
from ablate.training.logprobs import completion_logits, selected_logprobs
from ablate.training.lora import publish, tuned_policy
from ablate.training.seeding import derive_seed, seed_everything
from ablate.training.trainer import ExampleTrainer, TrainingRun


def run(context: StageContext, *, cadence: Cadence | None = None) -> dict[str, Any]:
    """Fine-tune ``model`` on the conversations of ``data``; write ``model/`` and ``history.jsonl``.

    Config: ``parameters`` (SFTParameters; the tokens are cut to ``max_length`` already) and ``seed``.
    """
    return _fine_tune(context, "model", SFTParameters.model_validate(context.config["parameters"]), cadence)


def run_method(context: StageContext, *, cadence: Cadence | None = None) -> dict[str, Any]:
    """Fine-tune ``policy`` likewise, as the method that ``config["algorithm"]`` names.

    The chat template of a policy that is trained on conditions writes those that are asked for into every prompt.
    """
    parameters = find_method(context.config["algorithm"]).parameters.model_validate(context.config["parameters"])
    assert isinstance(parameters, SFTParameters)
    asked = parameters.asked if isinstance(parameters, SteerLMParameters) else None
    return _fine_tune(context, "policy", parameters, cadence, asked)


def _fine_tune(
    context: StageContext, role: str, parameters: SFTParameters, cadence: Cadence | None, asked: str | None = None
) -> dict[str, Any]:
    plan = TrainingRun.of(context, cadence or Cadence(context.resources.checkpoint_seconds))
    seed_everything(derive_seed(plan.seed, "sft"))
    conversations = ConversationTokens.read(context.inputs["data"])
    tokenizer = load_tokenizer(context.inputs[role])
    if asked is not None:
        _require_words(tokenizer, asked)
        tokenizer.chat_template = conditioned_template(str(tokenizer.chat_template), asked)
    model = tuned_policy(context, parameters, role=role)
    steps = make_trainer(model, tokenizer, conversations, parameters, plan).fit(context.previous_work)
    plan.history.write(context.output / "history.jsonl")
    publish(model.cpu(), tokenizer, context.output / "model")
    return {"examples": len(conversations), "steps": steps, **plan.history.last}


def _require_words(tokenizer: PreTrainedTokenizerBase, condition: str) -> None:
    """Raise StageError where the tokenizer has no token for a part of the condition: the policy could not read it."""
    words = [word for word in condition.split() if tokenizer.unk_token_id in tokenizer.encode(word)]
    if tokenizer.unk_token_id is not None and words:
        raise StageError(
            f"the tokenizer can't spell {', '.join(map(repr, words))} of the condition {condition!r}",
            hint="write steerlm.condition in words that it knows, such as 'help : {helpfulness} , long : {verbosity}'",
        )


@dataclass(frozen=True)
class NextTokenObjective:
    """Cross-entropy of the labelled tokens, over the logits that predict them and no others."""

    def units(self, batch: dict[str, Any]) -> int:
        """Return the labelled tokens; the first token of a sequence is predicted by nothing."""
        return int(batch["completion_mask"][:, 1:].sum())

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return -log pi per labelled token, and whether it is the likeliest one."""
        logits_NV, ids_N = completion_logits(model, batch)
        loss_N = -selected_logprobs(logits_NV.unsqueeze(0), ids_N.unsqueeze(0)).squeeze(0)
        return loss_N, {"accuracy": (logits_NV.detach().argmax(-1) == ids_N).float()}

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: the first loss depends on the base model."""


class ConversationTrainer(ExampleTrainer, SFTTrainer):
    """TRL's SFTTrainer with the loss, batches and checkpoints of our other trainers.

    The loss equals TRL's. It takes our path from logits to log-probabilities, which makes no entropies: on a small
    model those cost as much as the backward pass.
    """

    def make_arguments(self, common: dict[str, Any]) -> SFTConfig:
        """Return TRL's arguments: nothing is prepared or packed, and activations are kept unless on a GPU."""
        # the name that the installed transformers knows; the old one warns in newer versions
        names = {field.name for field in fields(SFTConfig)}
        checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
        own: dict[str, Any] = {checkpointing: not common["use_cpu"]}
        return SFTConfig(
            **common,
            **own,
            packing=False,
            max_length=None,
            completion_only_loss=False,  # the batches say which tokens count
            dataset_kwargs={"skip_prepare_dataset": True},
        )


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: ConversationTokens,
    parameters: SFTParameters,
    plan: TrainingRun,
) -> ConversationTrainer:
    """Return the trainer of ``conversations``."""
    return ConversationTrainer(
        model,
        NextTokenObjective(),
        conversations,
        ConversationCollator(conversations, pad_id=pad_id(tokenizer)),
        parameters,
        plan,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"row": range(len(conversations))}),  # TRL takes no other type
    )

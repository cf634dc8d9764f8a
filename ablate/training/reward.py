"""Bradley–Terry reward models: another objective on the offline trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ablate.algorithms.reward_model import RewardModelParameters
from ablate.context import StageContext
from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.lora import publish, with_adapter
from ablate.training.losses import bradley_terry
from ablate.training.offline import train_offline
from ablate.training.score_head import sequence_scores
from ablate.training.seeding import derive_seed, seed_everything


@dataclass(frozen=True)
class RewardObjective:
    """The Bradley–Terry loss over one forward pass of chosen and rejected together."""

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and accuracy (a tie is an error), margin and scores."""
        chosen_B, rejected_B = sequence_scores(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        margin_B = (chosen_B - rejected_B).detach()
        values = {
            "accuracy": (margin_B > 0).float(),
            "margin": margin_B,
            "scores/chosen": chosen_B.detach(),
            "scores/rejected": rejected_B.detach(),
        }
        return bradley_terry(chosen_B, rejected_B), values

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: a fresh head may start anywhere."""


def run(context: StageContext) -> dict[str, Any]:
    """Train a reward model from a policy and a fresh scalar head; write ``model/`` and ``history.jsonl``."""
    return train_reward_model(context, Cadence(context.resources.checkpoint_seconds))


def train_reward_model(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    parameters = RewardModelParameters.model_validate(context.config["parameters"])
    seed = int(context.config["seed"])
    seed_everything(seed)
    pairs = PairTokens.read(context.inputs["data"])
    tokenizer = load_tokenizer(context.inputs["model"])
    model = load_reward_model(
        context.inputs["model"], head_seed=derive_seed(seed, "head"), quantisation=parameters.quantisation
    )
    # transformers' own forward, which others may score with, needs the id to find the last token
    model.config.pad_token_id = tokenizer.pad_token_id
    collator = PairCollator(pairs, pad_id=pad_id(tokenizer))
    floor = min(parameters.min_learning_rate / parameters.learning_rate, 1.0)
    with_adapter(model, parameters, seed)
    history = train_offline(context, model, RewardObjective(), collator, parameters, cadence=cadence, floor=floor)
    publish(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}

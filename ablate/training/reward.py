"""Bradley–Terry reward models: another objective on the offline trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablate.algorithms.reward_model import RewardModelParameters
from ablate.context import StageContext
from ablate.errors import StageError
from ablate.models.loading import load_reward_model, load_tokenizer, save_model
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.logprobs import padding_inputs
from ablate.training.losses import bradley_terry
from ablate.training.offline import train_offline
from ablate.training.seeding import derive_seed, seed_everything
from ablate.training.trainer import Cadence


def sequence_scores(model: nn.Module, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return the scalar head's value at each row's last real token, float32, shape [B].

    Which token is real is told by the mask alone: transformers' own forward looks for the last id that is not
    ``pad_token_id`` and reads one token early wherever a text ends with that id.
    """
    trunk, head = _trunk_and_head(model)
    hidden_BTH = trunk(
        input_ids=input_ids_BT,
        **padding_inputs(attention_mask_BT),
        use_cache=False,
    ).last_hidden_state
    columns_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
    last_B = (attention_mask_BT * columns_T).argmax(-1)
    rows_B = torch.arange(len(input_ids_BT), device=input_ids_BT.device)
    scores: Tensor = head(hidden_BTH[rows_B, last_B])
    return scores.squeeze(-1).float()


def _trunk_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    trunk = getattr(model, str(getattr(model, "base_model_prefix", "")), None)
    head = getattr(model, "score", None)
    if not isinstance(trunk, nn.Module) or not isinstance(head, nn.Module):
        raise StageError(
            f"{type(model).__name__} has no trunk with a head called score: its scores can't be read",
            hint="a reward model is a decoder with a linear head (AutoModelForSequenceClassification, num_labels 1)",
        )
    return trunk, head


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
    model = load_reward_model(context.inputs["model"], head_seed=derive_seed(seed, "head"))
    # transformers' own forward, which others may score with, needs the id to find the last token
    model.config.pad_token_id = tokenizer.pad_token_id
    collator = PairCollator(pairs, pad_id=tokenizer.pad_token_id or 0)
    floor = min(parameters.min_learning_rate / parameters.learning_rate, 1.0)
    history = train_offline(context, model, RewardObjective(), collator, parameters, cadence=cadence, floor=floor)
    save_model(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}

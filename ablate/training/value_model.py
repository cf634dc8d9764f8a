"""A sequence classifier with one output read token by token: the value network, and the reward model's scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate.errors import StageError
from ablate.training.advantages import last_token
from ablate.training.rollouts import EpisodeBatch


def token_scores(model: nn.Module, batch: EpisodeBatch) -> Tensor:
    """Return the score head's output at every column, float32, [B, T].

    ``model`` is a sequence classifier of transformers: a backbone and a linear head ``score`` with one output. Its
    own ``forward`` is not used, because that looks for the last token by comparing ids with the pad id.
    """
    head = getattr(model, "score", None)
    backbone = getattr(model, str(getattr(model, "base_model_prefix", "")), None)
    if not isinstance(head, nn.Module) or not isinstance(backbone, nn.Module):
        raise StageError(
            f"{type(model).__name__} has no backbone with a linear head named 'score': it can't give a value a token",
            hint="use a reward model made by a reward_model stage (AutoModelForSequenceClassification, one label)",
        )
    inputs: dict[str, Any] = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    hidden_BTD = backbone(**inputs, position_ids=batch.positions_BT, use_cache=False).last_hidden_state
    scores_BT1: Tensor = head(hidden_BTD)
    return scores_BT1.squeeze(-1).float()


def response_values(model: nn.Module, batch: EpisodeBatch) -> Tensor:
    """Return V(state before each response token), [B, R]: read at the position that predicts it; 0 at padding."""
    width = batch.response_mask_BR.shape[1]
    values_BR = token_scores(model, batch)[:, -width - 1 : -1]
    return values_BR.where(batch.response_mask_BR.bool(), 0.0)


@torch.no_grad()
def response_scores(model: nn.Module, batch: EpisodeBatch) -> Tensor:
    """Return the reward model's score, [B]: read at the last response token (the EOS if there is one)."""
    width = batch.response_mask_BR.shape[1]
    scores_BR = token_scores(model, batch)[:, -width:]
    return scores_BR.gather(-1, last_token(batch.response_mask_BR).unsqueeze(-1)).squeeze(-1)

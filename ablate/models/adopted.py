"""A checkpoint of elsewhere that is to stand for a stage's model: whole, and of the shape of what it would make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from ablate.errors import DataError
from ablate.models.loading import (
    load_config,
    load_tokenizer,
    new_policy,
    require_all_weights,
    require_reward_model,
    require_same_tokenizer,
)
from ablate.models.reward_heads import AttributeHeads
from ablate.models.stage import model_files

BOOKKEEPING = frozenset(
    {
        *("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache", "initializer_range"),
        *("id2label", "label2id", "problem_type", "return_dict", "output_attentions", "output_hidden_states"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "chunk_size_feed_forward", "pretraining_tp"),
    }
)
"""Keys of a config that change no logit of a model, or that its tokenizer says, which is compared by itself."""


def examine(
    checkpoint: Path, like: Path | Mapping[str, Any], tokenizer: Path, *, chat: bool, reward_loss: str | None
) -> list[Path]:
    """Return the files of a checkpoint that fits a stage; raises DataError that says what does not.

    ``like`` is the folder of a model of the same shape, or the architecture of one that is made here from scratch;
    ``tokenizer`` the folder of the tokenizer that the stage's model has. ``chat``: it has a chat template.
    ``reward_loss`` is the loss of a reward model; None: it is a policy.
    """
    files = model_files(checkpoint, checkpoint)
    expected = load_tokenizer(tokenizer, template=chat, doubled_bos=True)
    if isinstance(like, Path):
        shape = load_config(like)
    else:
        with torch.device("meta"):
            shape = new_policy(like, expected, seed=0).config
    config = load_config(checkpoint)
    if reward_loss is not None:
        require_reward_model(checkpoint, config, pairwise=reward_loss == "pairwise")
    if reward_loss == "attributes":
        AttributeHeads.read(checkpoint)
    _require_same_shape(checkpoint, config, shape)
    require_all_weights(checkpoint, scores=reward_loss is not None)
    require_same_tokenizer(load_tokenizer(checkpoint, template=chat, doubled_bos=True), expected)
    return files


def _require_same_shape(checkpoint: Path, config: PretrainedConfig, shape: PretrainedConfig) -> None:
    own, other = config.to_dict(), shape.to_dict()
    keys = sorted({*own, *other} - BOOKKEEPING)
    wrong = [f"{key} {own.get(key)} (not {other.get(key)})" for key in keys if own.get(key) != other.get(key)]
    if wrong:
        raise DataError(
            f"{checkpoint} is of another architecture than the stage's model: {', '.join(wrong)}",
            hint="adopt a checkpoint that was trained from the model that the stage starts from",
        )

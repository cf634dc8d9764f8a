"""What a model and its tokenizer say of themselves: what ends a response, what pads, how much fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig

from ablate.errors import DataError


def eos_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a response: those of the generation config and the tokenizer's EOS."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(value) for value in (*listed, tokenizer.eos_token_id) if value is not None)


def pad_id(tokenizer: Any) -> int:
    """Return the id that fills padding, EOS where there is none of its own: masks alone tell what padding is."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def context_length(model: nn.Module) -> int | None:
    """Return the tokens that fit the model's context, or None where its config does not say."""
    return _positions(getattr(model, "config", None))


def configured_context(folder: Path) -> int | None:
    """Return the tokens that fit the context of the model in ``folder``, whose weights are not read."""
    return _positions(AutoConfig.from_pretrained(folder))


def _positions(config: Any) -> int | None:
    sizes = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
    return next((int(size) for size in sizes if size), None)


def require_positions(model: nn.Module, tokens: int) -> None:
    """Raise DataError unless a sequence of this many tokens fits the model's context."""
    positions = context_length(model)
    if positions is not None and tokens > positions:
        raise DataError(
            f"the longest sequence has {tokens} tokens; the model has {positions} positions",
            hint=f"set max_length to at most {positions}: what is longer is then cut or dropped, as truncation says",
        )

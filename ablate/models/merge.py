"""Weights of several policies averaged into one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ablate.context import StageContext
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, require_same_tokenizer, save_model


def run(context: StageContext) -> dict[str, Any]:
    """Average the inputs ``model-0``, ``model-1``, … by ``config["weights"]``, which add up to 1; write ``model/``.

    Raises StageError for models of other shapes, DataError for other tokenizers.
    """
    weights = context.config["weights"]
    folders = [context.inputs[f"model-{index}"] for index in range(len(weights))]
    tokenizer = load_tokenizer(folders[0])
    for folder in folders[1:]:
        require_same_tokenizer(tokenizer, load_tokenizer(folder))
    model = average(folders, weights)
    save_model(model, tokenizer, context.output / "model")
    return {"models": len(folders), "parameters": sum(value.numel() for value in model.parameters())}


@torch.no_grad()
def average(folders: Sequence[Path], weights: Sequence[float]) -> PreTrainedModel:
    """Return the model of the first folder with the weighted sum of all models' parameters; two are held at a time.

    Sums are in float32, in the order given.
    """
    merged = load_policy(folders[0])
    sums = dict(merged.named_parameters())
    for value in sums.values():
        value.mul_(weights[0])
    for number, (folder, weight) in enumerate(zip(folders[1:], weights[1:], strict=True), start=2):
        other = dict(load_policy(folder).named_parameters())
        _require_same_shape(sums, other, number)
        for name, value in sums.items():
            value.add_(other[name], alpha=weight)
    return merged


def _require_same_shape(first: Mapping[str, Tensor], other: Mapping[str, Tensor], number: int) -> None:
    """Raise StageError, which names the first difference, unless both have the same parameters."""
    for name in dict.fromkeys((*first, *other)):
        shapes = [tuple(one[name].shape) if name in one else None for one in (first, other)]
        if shapes[0] != shapes[1]:
            found = " and ".join("none" if shape is None else str(shape) for shape in shapes)
            raise StageError(
                f"models 1 and {number} of the merge differ in shape: {name} is {found}",
                hint="weights are averaged of models of one architecture and size, tuned from one base",
            )

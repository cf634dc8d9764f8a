"""Models whose linear layers are held in four bits, as QLoRA does (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from ablate.errors import StageError

KEPT = ["lm_head", "score"]
"""Layers that stay as they are: the output layer, and the head of a reward model, which is trained whole."""

PACKS = "support_avx512bf16_for_cpu"
"""Attribute of bitsandbytes's layers: whether they may pack their weights for this CPU."""


def loading_options(quantisation: str | None) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told: nothing without quantisation, NF4 with double quantisation for 4bit.

    Raises StageError where bitsandbytes is missing.
    """
    if quantisation is None:
        return {}
    if find_spec("bitsandbytes") is None:
        raise StageError(
            f"quantisation {quantisation} needs the package bitsandbytes, which is not installed",
            hint="pip install 'ablate[qlora]', or leave quantisation out",
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=KEPT,
    )
    return {
        "quantization_config": config,
        "device_map": {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
    }


def with_gradients(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model after keeping its layers in four bits from the CPU's form of their weights, which has no gradient.

    bitsandbytes packs a layer's weights at its first pass in evaluation mode where the CPU multiplies bfloat16 in
    AVX-512; what then flows back through the layer is wrong, in training mode, too.
    """
    for layer in model.modules():
        if hasattr(layer, PACKS):
            setattr(layer, PACKS, False)
    return model


def is_quantised(model: PreTrainedModel) -> bool:
    """Return whether the model's linear layers are held in fewer bits."""
    return getattr(model, "hf_quantizer", None) is not None


def dense(model: PreTrainedModel) -> PreTrainedModel:
    """Give a quantised model the weights that its own stand for, in float32, and return it."""
    plain: nn.Module = model.dequantize()  # type: ignore[no-untyped-call]
    plain.float()
    return model

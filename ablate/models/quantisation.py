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


def loading_options(quantisation: str | None) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told: nothing without quantisation, NF4 with double quantisation for 4bit.

    Raises StageError where bitsandbytes or a GPU is missing.
    """
    if quantisation is None:
        return {}
    missing = [] if find_spec("bitsandbytes") else ["the package bitsandbytes"]
    missing += [] if torch.cuda.is_available() else ["a CUDA GPU"]
    if missing:
        raise StageError(
            f"quantisation {quantisation} needs bitsandbytes on a CUDA GPU; missing here: {' and '.join(missing)}",
            hint="install ablate[qlora] on a machine with a GPU, or leave quantisation out",
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=KEPT,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def is_quantised(model: PreTrainedModel) -> bool:
    """Return whether the model's linear layers are held in fewer bits."""
    return getattr(model, "hf_quantizer", None) is not None


def dense(model: PreTrainedModel) -> PreTrainedModel:
    """Give a quantised model the weights that its own stand for, in float32, and return it."""
    plain: nn.Module = model.dequantize()  # type: ignore[no-untyped-call]
    plain.float()
    return model

"""Supervised fine-tuning: next-token cross-entropy on the assistant's turns."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import UNPACKING, TrainingParameters

FORMULA = "L = -sum_t m_t log pi(y_t | y_<t, x) / sum_t m_t, with m_t = 1 on tokens of assistant turns"
SOURCE = f"Tülu 2; {UNPACKING}"


class SFTParameters(TrainingParameters):
    """Parameters of supervised fine-tuning; defaults: Tülu 2 as the study used it."""

    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate; Tülu 2 (1e-5 for 70B).")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of steps of linear warm-up; Tülu 2.")
    epochs: int = Field(2, ge=1, description="Passes over the data; Tülu 2.")
    batch_size: int = Field(128, ge=1, description="Conversations an optimiser step; Tülu 2.")
    max_length: int = Field(8192, ge=8, description="Tokens; longer conversations are cut at the end; Tülu 2.")

"""Next-token training from scratch: makes the small base models of the pocket world and of tests on real text."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import OptimiserParameters, Scheduler


class PretrainParameters(OptimiserParameters):
    """Parameters of base training; steps are fixed, never the time."""

    learning_rate: float = Field(6e-3, gt=0, description="Peak learning rate of AdamW; tuned on the pocket world.")
    scheduler: Scheduler = Field("linear", description="Shape after warm-up.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of steps of linear warm-up.")
    steps: int = Field(1800, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Documents a step, bucketed by length.")
    max_length: int = Field(256, ge=8, description="Tokens; longer documents are cut.")
    seed: int = Field(0, ge=0, description="Seed of initial weights and data order.")

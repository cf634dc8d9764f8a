"""Bradley–Terry reward model: a scalar head on the SFT model, trained on pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.algorithms.base import UNPACKING, TrainingParameters

FORMULA = "L = -log sigma(r(x, y_chosen) - r(x, y_rejected))"
SOURCE = f"Bradley & Terry 1952; Ouyang et al. 2022; {UNPACKING}"


class RewardModelParameters(TrainingParameters):
    """Parameters of a reward model; defaults: the study's."""

    learning_rate: float = Field(1e-5, gt=0, description=f"Peak learning rate; {UNPACKING}.")
    min_learning_rate: float = Field(1e-6, ge=0, description=f"Learning rate at the end of the decay; {UNPACKING}.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description=f"Share of steps of linear warm-up; {UNPACKING}.")
    epochs: int = Field(1, ge=1, description=f"Passes over the pairs; {UNPACKING}.")
    batch_size: int = Field(512, ge=1, description=f"Pairs an optimiser step; {UNPACKING}.")
    max_length: int = Field(4096, ge=8, description=f"Tokens of prompt and completion; {UNPACKING}.")
    truncation: Literal["drop", "keep-start"] = Field(
        "drop", description=f"What happens to pairs over max_length; the study removes them ({UNPACKING})."
    )

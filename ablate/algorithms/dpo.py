"""Direct preference optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.algorithms.base import UNPACKING, Method, TrainingParameters


class DPOParameters(TrainingParameters):
    """Parameters of DPO; defaults: the study's."""

    beta: float = Field(0.1, gt=0, description=f"Strength of the implicit KL penalty; {UNPACKING}.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Assumed share of flipped labels (cDPO); 0 in the study."
    )
    learning_rate: float = Field(5e-7, gt=0, description=f"Peak learning rate; {UNPACKING}.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description=f"Share of steps of linear warm-up; {UNPACKING}.")
    epochs: int = Field(3, ge=1, description=f"Passes over the pairs; {UNPACKING}.")
    batch_size: int = Field(32, ge=1, description=f"Pairs an optimiser step; {UNPACKING}.")
    max_length: int = Field(4096, ge=8, description=f"Tokens of prompt and completion; {UNPACKING}.")
    truncation: Literal["drop", "keep-start"] = Field(
        "keep-start", description=f"What happens to pairs over max_length; the study keeps them, cut ({UNPACKING})."
    )


METHOD = Method(
    name="dpo",
    title="DPO",
    parameters=DPOParameters,
    formula="L = -log sigma(beta [(log pi(c) - log pi_ref(c)) - (log pi(r) - log pi_ref(r))])",
    source="Rafailov et al. 2023 (arXiv 2305.18290), eq. 7",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
)

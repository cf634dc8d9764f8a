"""Direct preference optimisation."""

from __future__ import annotations

from pydantic import Field, model_validator

from ablate.algorithms.base import COST_OF_PAIRS, UNPACKING, Method, TRLPairParameters


class DPOParameters(TRLPairParameters):
    """Parameters of DPO; defaults: the study's."""

    beta: float = Field(0.1, gt=0, description=f"Strength of the implicit KL penalty; {UNPACKING}.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Assumed share of flipped labels (cDPO); 0 in the study."
    )

    @model_validator(mode="after")
    def _trl_smooths_no_labels(self) -> DPOParameters:
        if self.implementation == "trl" and self.label_smoothing:
            raise ValueError("TRL's loss has no label_smoothing: leave it out, or use implementation ablate")
        return self


METHOD = Method(
    name="dpo",
    title="DPO",
    parameters=DPOParameters,
    formula="L = -log sigma(beta [(log pi(c) - log pi_ref(c)) - (log pi(r) - log pi_ref(r))])",
    source="Rafailov et al. 2023 (arXiv 2305.18290), eq. 7",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_PAIRS,
)

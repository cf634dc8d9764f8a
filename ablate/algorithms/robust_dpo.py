"""Robust DPO: DPO debiased for a known share of flipped labels."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method, TRLPairParameters


class RobustDPOParameters(TRLPairParameters):
    """Parameters of robust DPO; the training defaults are the study's for DPO."""

    beta: float = Field(0.1, gt=0, description="Strength of the implicit KL penalty, as in DPO.")
    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="Share of flipped labels, epsilon of the paper.")


METHOD = Method(
    name="robust_dpo",
    title="Robust DPO",
    parameters=RobustDPOParameters,
    formula="L = [-(1 - eps) log sigma(h) + eps log sigma(-h)] / (1 - 2 eps), h as in DPO",
    source="Chowdhury et al. 2024 (arXiv 2403.00409), eq. 12",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_PAIRS,
)

"""Odds ratio preference optimisation: cross-entropy on the chosen completion and an odds ratio, without a reference."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_WITHOUT_REFERENCE, Method, TRLPairParameters

SOURCE = "Hong et al. 2024 (arXiv 2403.07691)"


class ORPOParameters(TRLPairParameters):
    """Parameters of ORPO; the training defaults are the study's for DPO."""

    odds_ratio_weight: float = Field(
        0.1, ge=0, description=f"Weight of the odds-ratio term, lambda of the paper; {SOURCE}, for Mistral 7B."
    )


METHOD = Method(
    name="orpo",
    title="ORPO",
    parameters=ORPOParameters,
    formula=(
        "L = -log p(c) - lambda log sigma(log odds(c) - log odds(r)), log p(y) = log pi(y) / |y|, "
        "odds(y) = p(y) / (1 - p(y))"
    ),
    source=f"{SOURCE}, eq. 6 and 7",
    reads=frozenset({"dataset"}),
    needs=("pairs",),
    entry="ablate.training.preference:run",
    cost=COST_WITHOUT_REFERENCE,
)

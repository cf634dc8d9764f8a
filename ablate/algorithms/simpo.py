"""Simple preference optimisation: a margin between mean log-probabilities, without a reference."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_WITHOUT_REFERENCE, Method, TRLPairParameters

SOURCE = "Meng et al. 2024 (arXiv 2405.14734)"


class SimPOParameters(TRLPairParameters):
    """Parameters of SimPO; the training defaults are the study's for DPO."""

    beta: float = Field(2.0, gt=0, description=f"Scale of the mean log-probability (a nat a token); {SOURCE}.")
    gamma: float = Field(
        1.0,
        ge=0,
        description=f"Margin between the rewards, not divided by beta; {SOURCE}, for Llama 3: gamma/beta 0.5.",
    )


METHOD = Method(
    name="simpo",
    title="SimPO",
    parameters=SimPOParameters,
    formula="L = -log sigma(beta log pi(c) / |c| - beta log pi(r) / |r| - gamma)",
    source=f"{SOURCE}, eq. 6",
    reads=frozenset({"dataset"}),
    needs=("pairs",),
    entry="ablate.training.preference:run",
    cost=COST_WITHOUT_REFERENCE,
)

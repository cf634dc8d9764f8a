"""Kahneman–Tversky optimisation: completions that are desirable or not, against a baseline of the batch."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method, TRLPairParameters

SOURCE = "Ethayarajh et al. 2024 (arXiv 2402.01306)"


class KTOParameters(TRLPairParameters):
    """Parameters of KTO; the training defaults are the study's for DPO, and a pair is two examples."""

    beta: float = Field(0.1, gt=0, description=f"Scale of the log-ratio against the baseline; {SOURCE}.")
    desirable_weight: float = Field(
        1.0, gt=0, description=f"Weight of chosen completions, lambda_D; 1 where there are as many of each; {SOURCE}."
    )
    undesirable_weight: float = Field(1.0, gt=0, description=f"Weight of rejected completions, lambda_U; {SOURCE}.")


METHOD = Method(
    name="kto",
    title="KTO",
    parameters=KTOParameters,
    formula=(
        "L = lambda_D (1 - sigma(beta (d_c - z0))) + lambda_U (1 - sigma(beta (z0 - d_r))), a mean over completions; "
        "d = log pi - log pi_ref; z0 = max(0, mean d of the batch's prompts with completions of other prompts)"
    ),
    source=SOURCE,
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs", "mismatched_logprobs"),
    entry="ablate.training.preference:run",
    cost=f"{COST_OF_PAIRS}; for z0, one more forward pass of both over as many mismatched completions",
)

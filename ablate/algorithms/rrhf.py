"""Rank responses to align: a ranking hinge on length-averaged log-probabilities of k responses, and SFT on the best."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_RANKINGS, Method, RankingParameters


class RRHFParameters(RankingParameters):
    """Parameters of RRHF; the training defaults are the study's for DPO."""

    rank_weight: float = Field(
        1.0, ge=0, description="Weight of the ranking loss beside SFT's; 1 in the paper's eq. 5 (its code: 100)."
    )
    length_exponent: float = Field(
        1.0, ge=0, description="Log-probabilities are divided by tokens to this power; 1 in the paper's eq. 1."
    )


METHOD = Method(
    name="rrhf",
    title="RRHF",
    parameters=RRHFParameters,
    formula=(
        "L = sum over pairs, j ranked below i, of max(0, p_j - p_i) - log pi(best); p = log pi(y) / |y|; "
        "log pi(best) is summed over tokens"
    ),
    source="Yuan et al. 2023 (arXiv 2304.05302), eq. 1-5",
    reads=frozenset({"dataset"}),
    needs=("rankings",),
    entry="ablate.training.ranking:run",
    cost=COST_OF_RANKINGS,
)

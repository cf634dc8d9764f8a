"""Preference ranking optimisation: each response against all below it, with SFT on the best."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_RANKINGS, Method, RankingParameters


class PROParameters(RankingParameters):
    """Parameters of PRO; the training defaults are the study's for DPO."""

    sft_weight: float = Field(
        0.05, ge=0, description="Weight of SFT's loss for two responses; for k it is this times (k - 1)^2, the paper's."
    )


METHOD = Method(
    name="pro",
    title="PRO",
    parameters=PROParameters,
    formula=(
        "L = -sum_i log(exp(p_i g_i) / (exp(p_i g_i) + sum_{j ranked below i} exp(p_j g_ij))) "
        "- sft_weight (k - 1)^2 log pi(best); p = log pi(y) / |y|, g_ij = score_i - score_j (1 without scores), "
        "g_i = max_j g_ij"
    ),
    source="Song et al. 2023 (arXiv 2306.17492), eq. 5-8",
    reads=frozenset({"dataset"}),
    needs=("rankings",),
    entry="ablate.training.ranking:run",
    cost=COST_OF_RANKINGS,
)

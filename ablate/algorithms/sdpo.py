"""Stepwise DPO: the pairs are cut into parts; each step starts from the policy of the step before and refers to it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method
from ablate.algorithms.dpo import DPOParameters

SOURCE = "Kim et al. 2024 (arXiv 2403.19270)"


class SDPOParameters(DPOParameters):
    """Parameters of sDPO; those of each step default to the study's for DPO."""

    parts: int = Field(2, ge=1, description=f"Parts of the pairs, a step each; {SOURCE} has two.")
    order: Literal["easy-to-hard", "given", "random"] = Field(
        "easy-to-hard",
        description="Which pairs come first: those that the first reference gives the highest log ref(c) - log ref(r), "
        f"so that its reward accuracy falls from part to part as in {SOURCE}; those written first; or any.",
    )


METHOD = Method(
    name="sdpo",
    title="sDPO",
    parameters=SDPOParameters,
    formula="DPO on part t of the pairs, with pi_ref = pi_(t-1), from which pi_t starts too",
    source=SOURCE,
    reads=frozenset({"dataset"}),
    needs=("pairs", "part", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=f"{COST_OF_PAIRS}; each pair is in one step only",
    rounds="parts",
)

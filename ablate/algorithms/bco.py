"""Binary classifier optimisation: the implicit reward as the logit of a classifier of single completions."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_BATCHES, Method, PairParameters

SOURCE = "Jung et al. 2024 (arXiv 2404.04656)"


class BCOParameters(PairParameters):
    """Parameters of BCO; the training defaults are the study's for DPO, and a pair is two examples."""

    beta: float = Field(0.1, gt=0, description=f"Scale of the implicit reward, the classifier's logit; {SOURCE}.")


METHOD = Method(
    name="bco",
    title="BCO",
    parameters=BCOParameters,
    formula=(
        "L = -log sigma(r_c - delta) - log sigma(-(r_r - delta)), a mean over completions; r = beta (log pi - log "
        "pi_ref); delta = mean r of all completions so far, this batch's included"
    ),
    source=f"{SOURCE}, without the reweighting of prompts (UDM)",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_BATCHES,
)

"""The hinge loss on DPO's margin: SLiC's ranking loss with a reference, as in RSO."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method, TRLPairParameters


class HingeParameters(TRLPairParameters):
    """Parameters of the hinge loss; the training defaults are the study's for DPO."""

    beta: float = Field(0.1, gt=0, description="Scale of the log-ratio difference; the loss is 0 from 1/beta on.")


METHOD = Method(
    name="hinge",
    title="Hinge",
    parameters=HingeParameters,
    formula="L = max(0, 1 - beta [(log pi(c) - log pi_ref(c)) - (log pi(r) - log pi_ref(r))])",
    source="Liu et al. 2023 (arXiv 2309.06657), hinge-norm; Zhao et al. 2023 (arXiv 2305.10425) without a reference",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_PAIRS,
)

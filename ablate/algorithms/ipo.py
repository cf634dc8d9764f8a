"""Identity preference optimisation, in its two readings: summed and length-averaged log-probabilities."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_PAIRS, Method, PairParameters, TRLPairParameters


class IPOParameters(PairParameters):
    """Parameters of IPO; the training defaults are the study's for DPO."""

    beta: float = Field(
        0.1,
        gt=0,
        description="Strength of the regularisation, tau of the paper: differences are drawn to 1/(2 beta).",
    )


class AveragedIPOParameters(IPOParameters, TRLPairParameters):
    """Parameters of IPO on means over tokens, which TRL has, too."""


METHOD = Method(
    name="ipo",
    title="IPO",
    parameters=IPOParameters,
    formula="L = (h - 1/(2 beta))^2, h = [log pi(c) - log pi_ref(c)] - [log pi(r) - log pi_ref(r)], sums over tokens",
    source="Azar et al. 2023 (arXiv 2310.12036), eq. 17; summed, as the study's code",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_PAIRS,
)

AVERAGED = Method(
    name="ipo_avg",
    title="IPO (averaged)",
    parameters=AveragedIPOParameters,
    formula="L = (h - 1/(2 beta))^2, h as in IPO with each completion's log-ratio divided by its tokens",
    source="Azar et al. 2023 (arXiv 2310.12036), eq. 17, with means over tokens as in TRL's loss type ipo",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_PAIRS,
)

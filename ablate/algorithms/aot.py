"""Alignment via optimal transport: log-ratios compared rank by rank over the batch, not pair by pair."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import COST_OF_BATCHES, Method, PairParameters

SOURCE = "Melnyk et al. 2024 (arXiv 2406.05882)"


class AOTParameters(PairParameters):
    """Parameters of AOT; the training defaults are the study's for DPO. A larger batch compares more quantiles."""

    beta: float = Field(0.1, gt=0, description="Scale of the difference of equal quantiles, as in DPO.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of flipped labels, as in cDPO.")


METHOD = Method(
    name="aot",
    title="AOT",
    parameters=AOTParameters,
    formula=(
        "L = -log sigma(beta (d_(i) - d_ref_(i))), a mean over ranks i of the batch; d = log pi(c) - log pi(r), "
        "d_ref the reference's"
    ),
    source=f"{SOURCE}, paired; TRL's loss type aot",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_BATCHES,
)

UNPAIRED = Method(
    name="aot_unpaired",
    title="AOT (unpaired)",
    parameters=AOTParameters,
    formula=(
        "L = -log sigma(beta (d_c_(i) - d_r_(i))), a mean over ranks i of the batch; d = log pi - log pi_ref of chosen "
        "and of rejected completions"
    ),
    source=f"{SOURCE}, unpaired; TRL's loss type aot_unpaired",
    reads=frozenset({"dataset"}),
    needs=("pairs", "reference_logprobs"),
    entry="ablate.training.preference:run",
    cost=COST_OF_BATCHES,
)

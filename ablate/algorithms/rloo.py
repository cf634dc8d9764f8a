"""REINFORCE with a leave-one-out baseline: the other responses to a prompt say what one of them is worth."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import UNPACKING, Method
from ablate.algorithms.on_policy import PolicyGradientParameters

SOURCE = "Ahmadian et al. 2024 (arXiv 2402.14740)"


class RLOOParameters(PolicyGradientParameters):
    """Parameters of RLOO; what is not of the method has the study's values for PPO, so that the two compare."""

    prompts_per_step: int = Field(128, ge=1, description="Prompts a step; with four responses PPO's 512 rollouts.")
    responses_per_prompt: int = Field(4, ge=2, description=f"Responses to each prompt, k; {SOURCE} compares 2 and 4.")
    kl_coefficient: float = Field(
        0.05, ge=0, description=f"Weight of the response's summed KL in its reward; as PPO's ({UNPACKING})."
    )
    clip_range: float | None = Field(
        0.2,
        gt=0,
        description="Clip of the ratio of a whole response's probabilities, as in TRL; it acts from a step's second "
        "mini-batch on. null: none.",
    )


METHOD = Method(
    name="rloo",
    title="RLOO",
    parameters=RLOOParameters,
    formula=(
        "L = -E_i min(rho_i A_i, clip(rho_i, 1-eps, 1+eps) A_i), rho_i of whole responses; "
        "A_i = R_i - mean of R_j over the k - 1 others; R = r(x, y) - beta sum_t KL_t"
    ),
    source=f"{SOURCE}, section 3.2",
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "reference", "reward"),
    entry="ablate.training.policy_gradient:run",
    cost=(
        "a step: sampling k responses a prompt; one forward pass of policy, reference and reward model over the "
        "rollouts; for each inner epoch one forward and one backward pass of the policy over them. No value network"
    ),
    judge="reward",
)

"""Group relative policy optimisation: rewards normalised among the responses to a prompt, the KL in the loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.algorithms.base import Method
from ablate.algorithms.on_policy import PolicyGradientParameters

SOURCE = "Shao et al. 2024 (arXiv 2402.03300)"
DR_GRPO = "Liu et al. 2025 (arXiv 2503.20783)"


class GRPOParameters(PolicyGradientParameters):
    """Parameters of GRPO; sampling and schedule have the study's values for PPO, so that the two compare."""

    prompts_per_step: int = Field(16, ge=1, description=f"Prompts a step: 1024 rollouts; {SOURCE}, section 4.2.")
    responses_per_prompt: int = Field(64, ge=2, description=f"Responses to each prompt, G; {SOURCE}, section 4.2.")
    mini_batch_size: int = Field(
        1024, ge=1, description=f"Rollouts an optimiser step, here all; {SOURCE}, section 4.2."
    )
    kl_coefficient: float = Field(
        0.04, ge=0, description=f"Weight of each token's KL (the k3 estimate) in the loss; {SOURCE}, section 4.2."
    )
    clip_range: float = Field(
        0.2, gt=0, description="Clip of a token's probability ratio; PPO's, the paper names none."
    )
    scale_by_deviation: bool = Field(
        True, description=f"Divide advantages by the group's standard deviation; false as in Dr. GRPO, {DR_GRPO}."
    )
    deviation_epsilon: float = Field(
        1e-4, gt=0, description="Added to the standard deviation (k - 1 in its denominator), as in TRL."
    )
    length_normalisation: Literal["response", "token", "limit"] = Field(
        "response",
        description="What a token's loss is divided by: the tokens of its response, then the mean over responses "
        f"(the paper's eq. 3); token: those of the whole mini-batch; limit: max_response_length (Dr. GRPO, {DR_GRPO}).",
    )


METHOD = Method(
    name="grpo",
    title="GRPO",
    parameters=GRPOParameters,
    formula=(
        "L = -E_i 1/|y_i| sum_t [min(rho_t A_i, clip(rho_t, 1-eps, 1+eps) A_i) - beta k3_t]; A_i = (r_i - mean) / sd "
        "of the prompt's k rewards; k3 = pi_ref/pi - log(pi_ref/pi) - 1"
    ),
    source=f"{SOURCE}, eq. 3 and 4",
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "reference", "reward"),
    entry="ablate.training.policy_gradient:run",
    cost=(
        "a step: sampling k responses a prompt; one forward pass of policy, reference and reward model over the "
        "rollouts; for each inner epoch one forward and one backward pass of the policy over them. No value network"
    ),
    judge="reward",
)

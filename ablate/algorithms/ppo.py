"""Proximal policy optimisation against a reward model, as the study ran it."""

from __future__ import annotations

from pydantic import Field

from ablate.algorithms.base import UNPACKING, Method
from ablate.algorithms.on_policy import PolicyGradientParameters


class PPOParameters(PolicyGradientParameters):
    """Parameters of PPO; defaults: the study's at 13B."""

    value_learning_rate: float | None = Field(
        None, gt=0, description="Value network's learning rate; null: the policy's."
    )
    kl_coefficient: float = Field(
        0.05, ge=0, description=f"Per-token KL penalty in the reward; 0.0325 for 70B RMs; {UNPACKING}."
    )
    gamma: float = Field(1.0, gt=0, le=1, description=f"Discount; {UNPACKING}.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description=f"GAE's lambda; {UNPACKING}.")
    clip_range: float = Field(0.2, gt=0, description=f"Clip of the probability ratio; {UNPACKING}.")
    value_clip_range: float = Field(0.2, gt=0, description=f"Clip of the value's change; {UNPACKING}.")
    value_coefficient: float = Field(0.1, ge=0, description=f"Weight of the value loss; {UNPACKING}.")
    whiten_advantages: bool = Field(True, description=f"Whiten advantages over the step's tokens; {UNPACKING}.")


METHOD = Method(
    name="ppo",
    title="PPO",
    parameters=PPOParameters,
    formula="L = -E_t min(rho_t A_t, clip(rho_t, 1-eps, 1+eps) A_t) + c_v L_value; r = RM(x, y) - beta KL per token",
    source="Schulman et al. 2017; Ouyang et al. 2022; " + UNPACKING,
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "reference", "reward"),
    entry="ablate.training.policy_gradient:run",
    cost=(
        "a step: sampling from the policy; one forward pass of policy, value network, reference and reward model over "
        "the rollouts; for each inner epoch one forward and one backward pass of policy and value network over them"
    ),
    judge="reward",
)

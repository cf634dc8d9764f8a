"""Proximal policy optimisation against a reward model, as the study ran it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ablate.algorithms.base import UNPACKING, Method
from ablate.catalogs.parameters import OptimiserParameters


class PPOParameters(OptimiserParameters):
    """Parameters of PPO; defaults: the study's at 13B."""

    learning_rate: float = Field(1e-6, gt=0, description=f"Policy learning rate after warm-up; {UNPACKING}.")
    value_learning_rate: float | None = Field(
        None, gt=0, description="Value network's learning rate; null: the policy's."
    )
    warmup_ratio: float = Field(
        0.1, ge=0, lt=1, description=f"Share of steps of linear warm-up, then constant; {UNPACKING}."
    )
    epochs: int = Field(1, ge=1, description=f"Passes over the prompts; {UNPACKING}.")
    steps: int | None = Field(None, ge=1, description="Rollout steps; null: as many as the epochs give.")
    prompts_per_step: int = Field(512, ge=1, description=f"Prompts, one rollout each, a step; {UNPACKING}.")
    mini_batch_size: int = Field(64, ge=1, description=f"Rollouts an optimiser step; {UNPACKING}.")
    inner_epochs: int = Field(1, ge=1, description=f"Passes over a step's rollouts; {UNPACKING}.")
    temperature: float = Field(0.7, gt=0, description=f"Sampling temperature of rollouts; {UNPACKING}.")
    kl_coefficient: float = Field(
        0.05, ge=0, description=f"Per-token KL penalty in the reward; 0.0325 for 70B RMs; {UNPACKING}."
    )
    gamma: float = Field(1.0, gt=0, le=1, description=f"Discount; {UNPACKING}.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description=f"GAE's lambda; {UNPACKING}.")
    clip_range: float = Field(0.2, gt=0, description=f"Clip of the probability ratio; {UNPACKING}.")
    value_clip_range: float = Field(0.2, gt=0, description=f"Clip of the value's change; {UNPACKING}.")
    value_coefficient: float = Field(0.1, ge=0, description=f"Weight of the value loss; {UNPACKING}.")
    whiten_advantages: bool = Field(True, description=f"Whiten advantages over the step's tokens; {UNPACKING}.")
    missing_eos_reward: float | None = Field(
        -10.0,
        description=f"Reward that replaces the score of a response without EOS; null: keep the score; {UNPACKING}.",
    )
    max_prompt_length: int = Field(1024, ge=1, description=f"Tokens; longer prompts are dropped; {UNPACKING}.")
    max_response_length: int = Field(1024, ge=1, description=f"Tokens; {UNPACKING}.")
    stop_at_kl: float | None = Field(
        None, gt=0, description="Stop with an error when a step's mean KL (nats) exceeds this."
    )

    def identity(self) -> dict[str, Any]:
        """Return the parameters as they enter a stage's identity; a number of steps overrules the epochs."""
        values = super().identity()
        if self.steps is not None:
            del values["epochs"]
        return values


METHOD = Method(
    name="ppo",
    title="PPO",
    parameters=PPOParameters,
    formula="L = -E_t min(rho_t A_t, clip(rho_t, 1-eps, 1+eps) A_t) + c_v L_value; r = RM(x, y) - beta KL per token",
    source="Schulman et al. 2017; Ouyang et al. 2022; " + UNPACKING,
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "reward_model", "reference"),
    entry="ablate.training.policy_gradient:run",
    cost=(
        "a step: sampling from the policy; one forward pass of policy, value network, reference and reward model over "
        "the rollouts; for each inner epoch one forward and one backward pass of policy and value network over them"
    ),
)

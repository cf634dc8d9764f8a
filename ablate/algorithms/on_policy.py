"""What every on-policy method is given: how prompts are drawn, responses sampled, and a rollout passed over."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ablate.algorithms.base import UNPACKING
from ablate.catalogs.parameters import OptimiserParameters


class RolloutParameters(OptimiserParameters):
    """Parameters of a method that learns from samples of its own policy; defaults: the study's for PPO."""

    learning_rate: float = Field(1e-6, gt=0, description=f"Policy learning rate after warm-up; {UNPACKING}.")
    warmup_ratio: float = Field(
        0.1, ge=0, lt=1, description=f"Share of steps of linear warm-up, then constant; {UNPACKING}."
    )
    epochs: int = Field(1, ge=1, description=f"Passes over the prompts; {UNPACKING}.")
    steps: int | None = Field(None, ge=1, description="Rollout steps; null: as many as the epochs give.")
    prompts_per_step: int = Field(512, ge=1, description=f"Prompts a step; {UNPACKING}.")
    responses_per_prompt: int = Field(
        1, ge=1, description=f"Responses sampled to each prompt; {UNPACKING}.", json_schema_extra={"since": 1}
    )
    mini_batch_size: int = Field(64, ge=1, description=f"Rollouts an optimiser step; {UNPACKING}.")
    inner_epochs: int = Field(1, ge=1, description=f"Passes over a step's rollouts; {UNPACKING}.")
    temperature: float = Field(0.7, gt=0, description=f"Sampling temperature of rollouts; {UNPACKING}.")
    missing_eos_reward: float | None = Field(
        -10.0,
        description=f"Reward that replaces the score of a response without EOS; null: keep the score; {UNPACKING}.",
    )
    max_prompt_length: int = Field(1024, ge=1, description=f"Tokens; longer prompts are dropped; {UNPACKING}.")
    max_response_length: int = Field(1024, ge=1, description=f"Tokens; {UNPACKING}.")
    rollout_engine: Literal["in-process", "vllm"] = Field(
        "in-process",
        description="What samples: the process that trains, or a vLLM server, whose random numbers are others.",
        json_schema_extra={"since": "in-process"},
    )
    stop_at_kl: float | None = Field(
        None, gt=0, description="Stop with an error when a step's mean KL (nats) exceeds this."
    )
    win_rate_every: int | None = Field(
        None,
        ge=1,
        description="Steps from one measurement of the win rate to the next: responses against one of the reference's "
        "to the same prompt, by the gold reward where it is known, else by what scores them; null: none.",
        json_schema_extra={"since": None},
    )

    def identity(self) -> dict[str, Any]:
        """Return the parameters as they enter a stage's identity; a number of steps overrules the epochs."""
        values = super().identity()
        if self.steps is not None:
            del values["epochs"]
        return values


class PolicyGradientParameters(RolloutParameters):
    """Parameters of a method whose update is a policy gradient."""

    kl_coefficient: float = Field(ge=0, description="Weight of the KL from the reference.")

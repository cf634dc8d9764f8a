"""Online DPO (OAIF): pairs of the policy's own samples, ordered by an annotator while it learns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ablate.algorithms.base import Method
from ablate.algorithms.on_policy import RolloutParameters

EASYLM = "EasyLM's online DPO (hamishivi/EasyLM), code of the study that its paper does not report on"
PairLoss = Literal["dpo", "ipo", "hinge"]


class OnlinePairParameters(RolloutParameters):
    """What every method that learns from pairs of its own samples is given.

    Log-probabilities in the loss are at temperature 1, as offline; ``temperature`` is that of sampling alone.
    """

    learning_rate: float = Field(5e-7, gt=0, description=f"Peak learning rate; {EASYLM}.")
    loss: PairLoss = Field("dpo", description="Loss on a pair, as the offline method of this name has it.")
    beta: float = Field(0.1, gt=0, description=f"The loss's beta; {EASYLM}.")
    prompts_per_step: int = Field(32, ge=1, description="Prompts a step; the study's pairs a step of offline DPO.")
    responses_per_prompt: int = Field(
        2, ge=2, description="Responses to each prompt, of which the best and the worst make a pair; Guo et al. 2024."
    )
    mini_batch_size: int = Field(32, ge=1, description="Pairs an optimiser step; the study's of offline DPO.")
    inner_epochs: int = Field(1, ge=1, description="Passes over a step's pairs; Guo et al. 2024.")
    missing_eos_reward: float | None = Field(
        -10.0,
        description="Score that replaces the annotator's for a response without EOS, as in PPO; null: keep the score.",
    )

    @property
    def labels_per_prompt(self) -> int:
        """Labels that ordering the responses to a prompt costs: a comparison for each of them beyond the first."""
        return self.responses_per_prompt - 1


class OnlineDPOParameters(OnlinePairParameters):
    """Parameters of online DPO."""

    label_budget: int | None = Field(
        None,
        ge=1,
        description="Labels asked of the annotator at most, ties included: a comparison of two responses is one, a "
        "prompt with k responses has k - 1; training ends with the last whole step. Null: no limit.",
    )

    @model_validator(mode="after")
    def _room_for_a_step(self) -> OnlineDPOParameters:
        labels = self.prompts_per_step * self.labels_per_prompt
        if self.label_budget is not None and self.label_budget < labels:
            raise ValueError(
                f"label_budget {self.label_budget} has no room for one step of {labels} labels; lower prompts_per_step"
            )
        return self


COST_OF_ONLINE_PAIRS = (
    "a step: sampling from the policy; one forward pass of policy and reference over all samples; the annotator's "
    "scores; for the pairs one forward pass of the reference and for each inner epoch one forward and one backward "
    "pass of the policy"
)

METHOD = Method(
    name="online_dpo",
    title="Online DPO",
    parameters=OnlineDPOParameters,
    formula="y_1 … y_n ~ pi(. | x); c, r = the annotator's best and worst of them; L(c, r) = loss of DPO, IPO or hinge",
    source="Guo et al. 2024 (arXiv 2402.04792), algorithm 1",
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "prompt_texts", "annotator", "reference"),
    entry="ablate.training.online:run",
    cost=COST_OF_ONLINE_PAIRS,
    judge="annotator",
    leaves_pairs=True,
    divisible=False,
    revision=2,
)

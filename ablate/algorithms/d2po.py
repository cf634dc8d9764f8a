"""D2PO: a discriminator, refreshed on a few gold labels as the policy moves, labels the policy's own samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.algorithms.base import Method
from ablate.algorithms.online_dpo import COST_OF_ONLINE_PAIRS, OnlinePairParameters

D2PO = "Singhal et al. 2024 (arXiv 2405.01511) and its code (PrasannS/d2po)"


class D2POParameters(OnlinePairParameters):
    """Parameters of D2PO; defaults: the published ones."""

    learning_rate: float = Field(5e-5, gt=0, description=f"Peak learning rate of the policy; {D2PO}.")
    beta: float = Field(0.05, gt=0, description=f"The loss's beta; {D2PO}.")
    temperature: float = Field(1.0, gt=0, description=f"Sampling temperature; {D2PO}.")
    label_budget: int | None = Field(
        None,
        ge=1,
        description="Gold labels (comparisons of two responses) asked of the annotator at most, ties included; then "
        "the discriminator stays as it is and training goes on. Null: no limit.",
    )
    discriminator: Literal["sft", "reward_model"] = Field(
        "reward_model",
        description="What the discriminator starts from: the policy's start with a fresh head, or the cell's trained "
        f"reward model ({D2PO}).",
    )
    gold_every: int = Field(
        256, ge=1, description=f"Pairs of the policy between two rounds of gold labels; {D2PO}. The first step has one."
    )
    gold_labels: int = Field(16, ge=1, description=f"Gold labels a round; {D2PO}.")
    gold_choice: Literal["confidence", "random"] = Field(
        "confidence",
        description="Which pairs get gold labels: those whose two scores the discriminator tells apart least, or a "
        f"seeded draw; {D2PO} has both.",
    )
    gold_memory: Literal["round", "all"] = Field(
        "round", description="Gold labels the discriminator learns from in a round: the round's own, or all so far."
    )
    discriminator_learning_rate: float = Field(1e-4, gt=0, description=f"Of AdamW, constant; {D2PO}.")
    discriminator_epochs: int = Field(4, ge=1, description=f"Passes over the gold labels of a round; {D2PO}.")
    discriminator_batch_size: int = Field(16, ge=1, description=f"Gold pairs an optimiser step; {D2PO}.")


METHOD = Method(
    name="d2po",
    title="D2PO",
    parameters=D2POParameters,
    formula="y_1, y_2 ~ pi(. | x); every so many pairs: -log sigma(r(c*) - r(r*)) on few gold labels; "
    "c, r = the discriminator's order; L(c, r) = loss of DPO, IPO or hinge",
    source="Singhal et al. 2024 (arXiv 2405.01511)",
    reads=frozenset({"dataset", "reward_model", "prompts"}),
    needs=("prompts", "prompt_texts", "annotator", "discriminator", "reference"),
    entry="ablate.training.online:run",
    cost=COST_OF_ONLINE_PAIRS + "; a round of gold labels: forward and backward passes of the discriminator over them",
    judge="annotator",
    reward_model_if=("discriminator", "reward_model"),
    leaves_pairs=True,
    divisible=False,
    revision=2,
)

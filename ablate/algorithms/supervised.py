"""Supervised fine-tuning as a method: a policy imitates the answers of a set, chosen responses of a preference set."""

from __future__ import annotations

from ablate.algorithms.base import Method
from ablate.algorithms.sft import FORMULA, SOURCE, SFTParameters

COST = "an epoch: one forward and one backward pass of the policy over every conversation"

METHOD = Method(
    name="supervised",
    title="SFT",
    parameters=SFTParameters,
    formula=f"{FORMULA}; of a preference set, on tokens of the chosen response",
    source=f"{SOURCE}; on chosen responses, Rafailov et al. 2023 (arXiv 2305.18290), Preferred-FT",
    reads=frozenset({"dataset"}),
    needs=("answers",),
    entry="ablate.training.sft:run_method",
    cost=COST,
    formats=("instruction", "preference"),
)

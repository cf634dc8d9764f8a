"""Pairs and their graders: which of two responses scores higher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry


class PairwiseOptions(Closed):
    """Accuracy over pairs; a tie is lost (RewardBench)."""

    seed: int = Field(default=0, ge=0, description="of the random baseline")


class ImplicitOptions(PairwiseOptions):
    """The implicit reward of a policy (Rafailov et al. 2023), as RewardBench takes it."""

    reference: bool = Field(default=True, description="log pi - log ref; false: log pi alone")
    average: bool = Field(description="divide by the response's tokens; default: only without a reference")

    @model_validator(mode="before")
    @classmethod
    def _average_without_a_reference(cls, value: Any) -> Any:
        return {"average": not value.get("reference", True), **value} if isinstance(value, Mapping) else value


_OF_PAIRS = ("accuracy", "random", "longest", "shortest", "calibration_error")

PROMPTS = {
    "pocket-pairs": Entry("ablate.rewards.pairs:pocket"),
    "llmbar": Entry("ablate.rewards.pairs:llmbar"),
}

GRADERS = {
    "pairwise": Entry("ablate.evaluation.graders.pairs:pairwise", PairwiseOptions, revision=2, metrics=_OF_PAIRS),
    "implicit": Entry("ablate.evaluation.graders.pairs:implicit", ImplicitOptions, revision=3, metrics=_OF_PAIRS),
}

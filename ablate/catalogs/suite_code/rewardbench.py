"""Prompts and graders of RewardBench, versions 1 and 2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry
from ablate.catalogs.suite_code.pairs import ImplicitOptions, PairwiseOptions

Rule = Literal["launch", "current"]


class RewardBenchOptions(PairwiseOptions):
    """How sections become one score; a score is comparable under its rule only."""

    rule: Rule = Field(
        default="current",
        description="current: weights 1, 1, 1, 1, 0.5, a missing section left out; launch (March 2024): plain mean",
    )


class RewardBenchImplicitOptions(ImplicitOptions, RewardBenchOptions):
    """The implicit reward of a policy on RewardBench."""


class JudgeOrder(Closed):
    """In which order a judge is shown the two responses of a pair."""

    seed: int = Field(default=0, ge=0, description="of the draw of the order, one for each pair")


OF_CANDIDATES = ("rewardbench-2", "rewardbench-2-implicit")
"""Prompts and graders of several responses to a prompt, of which more than one may be right."""

_PAIRS = ("accuracy", "random", "longest", "shortest")

PROMPTS = {
    "rewardbench": Entry("ablate.rewards.rewardbench:pairs"),
    "rewardbench-judge": Entry("ablate.evaluation.prompts.rewardbench:judged", JudgeOrder),
    "rewardbench-2": Entry("ablate.rewards.rewardbench:candidates"),
}

GRADERS = {
    "rewardbench": Entry(
        "ablate.evaluation.graders.rewardbench:scored",
        RewardBenchOptions,
        metrics=_PAIRS,
        alone="ablate.evaluation.graders.rewardbench:submitted",
        judge="rewardbench",
    ),
    "rewardbench-implicit": Entry(
        "ablate.evaluation.graders.rewardbench:implicit", RewardBenchImplicitOptions, metrics=_PAIRS
    ),
    "rewardbench-judge": Entry("ablate.evaluation.graders.rewardbench:judged", RewardBenchOptions, metrics=_PAIRS),
    "rewardbench-2": Entry(
        "ablate.evaluation.graders.rewardbench_2:scored",
        PairwiseOptions,
        metrics=_PAIRS,
        alone="ablate.evaluation.graders.rewardbench_2:submitted",
    ),
    "rewardbench-2-implicit": Entry(
        "ablate.evaluation.graders.rewardbench_2:implicit", ImplicitOptions, metrics=_PAIRS
    ),
}

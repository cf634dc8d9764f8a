"""Prompts and graders of the pocket world."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed
from ablate.catalogs.suite_code.entry import Entry

Skill = Literal["facts", "truth", "arithmetic", "code", "safety", "chat", "constraints"]
"""Skills of the pocket world."""


class PocketGraderOptions(Closed):
    """Options of the pocket grader."""

    skills: tuple[Skill, ...] | None = Field(default=None, description="grade these skills only; null: all")
    measure: Literal["correct", "gold"] = "correct"


class ClosedFormOptions(Closed):
    """A reward that is a formula of the response alone."""

    reward: Literal["nouns"] = Field(description="nouns: words of the response that are nouns of the pocket language")


_CHECKS = ("answered", "correct", "worked", "polite", "concise")
_CHECKS_OF_A_SKILL = ("misconception", "refused", "should_refuse", "greeted", "constraints_kept")

PROMPTS = {"pocket": Entry("ablate.evaluation.prompts.pocket:pocket")}

GRADERS = {
    "pocket": Entry(
        "ablate.evaluation.graders.pocket:pocket",
        PocketGraderOptions,
        metrics=("accuracy", "gold", *_CHECKS, *_CHECKS_OF_A_SKILL),
        gold="ablate.evaluation.graders.pocket:pocket_gold_response",
    ),
    "closed-form": Entry("ablate.evaluation.graders.pocket:closed_form", ClosedFormOptions, metrics=("nouns",)),
}

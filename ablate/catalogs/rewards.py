"""What can score the responses of an on-policy method: a reward model, a formula, or a grader of evaluation.

The names are values of the axes ``reward`` and ``annotator``. A verifier is a grader that reads the training prompt's
own facts (its item, its answer, its constraints), which a set of prompts carries as its ``checks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.catalogs.converters import Checks
from ablate.catalogs.judges import JUDGE_REVISION, Judge, JudgeName
from ablate.catalogs.suite_code import find_entry
from ablate.catalogs.suite_code.entry import Entry
from ablate.catalogs.suite_code.harness import ReplayOptions
from ablate.errors import Location, UnknownNameError

REWARD_MODEL = "reward_model"
"""The reward of a specification that names none: the cell's reward model."""
IFEVAL = Entry("ablate.evaluation.verifiers:ifeval", ReplayOptions, package="lm-eval")
"""IFEval's own checks of one response. Suites read them through lm-eval, whose task wants the whole test set."""
EXACT_ANSWER = Entry("ablate.evaluation.verifiers:exact_answer")
"""Numbers compared as numbers. GSM8K's grader is the study's, which loses signs and decimal points."""
OWN_GRADERS = {"ifeval": IFEVAL, "exact-answer": EXACT_ANSWER}
"""Graders that are rewards alone; the others are those of suites."""


@dataclass(frozen=True)
class Verifier:
    """A grader as a reward, a suite's or one of ``OWN_GRADERS``: ``metric`` is that of its metrics which scores."""

    checks: Checks
    grader: str
    metric: str
    options: Mapping[str, Any]

    @property
    def code(self) -> Entry:
        """Where the grader is."""
        return OWN_GRADERS[self.grader] if self.grader in OWN_GRADERS else find_entry("grader", self.grader)


@dataclass(frozen=True)
class RewardEntry:
    """One name: what it scores by. ``entry`` is the module and function that opens it, empty for the reward model.

    ``formula`` is the module and function of one: a number of the response alone. ``revision`` is raised when its
    scores change; a verifier's grader has its own.
    """

    name: str
    description: str
    entry: str = ""
    verifier: Verifier | None = None
    revision: int = 1
    judge: Judge | None = None
    formula: str = ""

    def parts(self) -> dict[str, int]:
        """Return the revisions of the code that scores, by name."""
        if self.judge is not None:
            return {"judge": JUDGE_REVISION}
        own = {f"reward {self.name}": self.revision}
        if self.verifier is None:
            return own
        return own | {f"grader {self.verifier.grader}": self.verifier.code.revision}

    def identity(self) -> dict[str, Any]:
        """Return what else decides its scores, as a stage's config spells it: versions of installed packages."""
        return {} if self.verifier is None else self.verifier.code.versions()


_GRADED = "ablate.evaluation.verifiers:open_verifier"
REWARDS: dict[str, RewardEntry] = {
    entry.name: entry
    for entry in (
        RewardEntry(REWARD_MODEL, "the cell's reward model, read at the last token of the response"),
        RewardEntry(
            "nouns",
            "number of nouns of the pocket language in the response",
            "ablate.rewards.closed_form:open_formula",
            formula="ablate.pocket.language:count_nouns",
        ),
        RewardEntry(
            "pocket-gold",
            "gold reward of the pocket world, 0 to 2: correct, worked, polite, concise",
            _GRADED,
            Verifier("pocket", "pocket", "gold", {"skills": None, "measure": "gold"}),
        ),
        RewardEntry(
            "pocket-correct",
            "1 where the pocket world's check of the item is passed, else 0",
            _GRADED,
            Verifier("pocket", "pocket", "accuracy", {"skills": None, "measure": "correct"}),
        ),
        RewardEntry(
            "exact-answer",
            "1 where the last number of the response equals the prompt's answer, sign and decimals included, else 0",
            _GRADED,
            Verifier("answer", "exact-answer", "exact_match", {}),
            revision=2,
        ),
        RewardEntry(
            "ifeval",
            "1 where the response follows all instructions that can be checked (IFEval, strict), else 0",
            _GRADED,
            Verifier("ifeval", "ifeval", "prompt_level_strict_acc", {"sentences": "regex"}),
        ),
        RewardEntry(
            "unit-tests",
            "1 where the Python program in the response passes all unit tests of the prompt, in a sandbox, else 0",
            _GRADED,
            Verifier("tests", "unit-tests", "pass@1", {"k": [1], "seconds": 10.0, "extraction": "response"}),
        ),
    )
}
"""The rewards by name."""
LABELLERS = tuple(name for name, entry in REWARDS.items() if entry.entry)
"""Those that score responses by their name alone: formulas and verifiers."""
GOLD = "pocket-gold"
"""The reward that is logged beside any other where the prompts are items of the pocket world."""


def find_reward(name: str, *, axis: str = "reward", location: Location | None = None) -> RewardEntry:
    """Return the reward called ``name``; raises UnknownNameError with the nearest name."""
    if isinstance(name, JudgeName):
        return RewardEntry(name, f"{name.judge.shown}, which is asked", judge=name.judge)
    if name not in REWARDS:
        raise UnknownNameError(axis, name, REWARDS, location=location)
    return REWARDS[name]

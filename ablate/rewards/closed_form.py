"""Rewards that are a formula of the response: known exactly, so that what optimising them does can be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablate.errors import UnknownNameError
from ablate.models.chat import Messages
from ablate.pocket.language import count_nouns
from ablate.rewards.interface import Reward

FORMULAS: dict[str, Callable[[str], float]] = {"count_nouns": count_nouns}


@dataclass(frozen=True)
class ClosedForm:
    """A formula of the response's text alone."""

    formula: Callable[[str], float]

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """The formula's value for each response."""
        return [self.formula(response) for _, response in zip(prompts, responses, strict=True)]


def closed_form(name: str) -> Reward:
    """The formula called ``name``; raises ``UnknownNameError`` with the nearest one."""
    if name not in FORMULAS:
        raise UnknownNameError("closed-form reward", name, FORMULAS)
    return ClosedForm(FORMULAS[name])

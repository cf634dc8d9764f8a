"""Rewards that are a formula of the response: known exactly, so that what optimising them does can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.catalogs.rewards import REWARDS
from ablate.context import Resources, import_function
from ablate.errors import UnknownNameError
from ablate.models.chat import Messages

Formula = Callable[[str], float]


def closed_form(name: str) -> Formula:
    """The formula called ``name``; raises ``UnknownNameError`` with the nearest one."""
    formulas = {known: entry.formula for known, entry in REWARDS.items() if entry.formula}
    if name not in formulas:
        raise UnknownNameError("closed-form reward", name, formulas)
    return import_function(formulas[name], f"the formula {name}")


@dataclass(frozen=True)
class ClosedForm:
    """A formula as a reward: nothing is asked of the prompt."""

    formula: Formula

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """One number for each response."""
        return [self.formula(response) for response in responses]


def open_formula(name: str, rows: Sequence[Mapping[str, Any]], resources: Resources | None = None) -> ClosedForm:
    """The formula called ``name`` as a reward; neither the rows of the prompts nor the resources are read."""
    return ClosedForm(closed_form(name))

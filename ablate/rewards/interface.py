"""What every reward is: something that scores responses to prompts; and what compares two of them instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ablate.models.chat import Messages


@dataclass(frozen=True)
class Score:
    """A number for one response; null where the reward can't read the text. ``cut``: it read a part of it."""

    value: float | None
    cut: bool = False


class Reward(Protocol):
    """Scores responses; higher is better."""

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """One number for each response to its prompt; null where the reward can't read the whole text."""


@runtime_checkable
class PairJudge(Protocol):
    """Says which of two responses is better, and gives none a score: for suites of pairs, labels and annotators."""

    def compare(self, prompts: Sequence[Messages], firsts: Sequence[str], seconds: Sequence[str]) -> list[float | None]:
        """Log-odds that the first response is better; null where the judge can't read both whole.

        Exchanging the two changes the sign alone.
        """

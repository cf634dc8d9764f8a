"""What every reward is: something that scores responses to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ablate.models.chat import Messages


class Reward(Protocol):
    """Scores responses; higher is better."""

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """One number for each response to its prompt; null where the reward can't read the whole text."""

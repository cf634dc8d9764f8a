"""Mean lengths in words of the examples that a stage wrote, kept as running sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.models.chat import Message

PARTS = {
    "preference": ("prompt", "chosen", "rejected"),
    "records": ("prompt",),
    "instruction": ("prompt", "response"),
    "prompts": ("prompt",),
}
"""Format to the parts of an example, the prompt first."""


def count_words(turns: Iterable[Message]) -> int:
    """Return the number of words (runs without white space) of all turns."""
    return sum(len(turn["content"].split()) for turn in turns)


def word_counts(format: str, example: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the number of words of each of the :data:`PARTS` of one line of an output file."""
    if format == "instruction":
        *prompt, response = example["messages"]
        return count_words(prompt), count_words([response])
    return tuple(count_words(example[part]) for part in PARTS[format])


class MeanWords:
    """Mean words of each part of the examples of one format.

    Every example counts once, so that a prompt of two pairs counts twice; ``distinct_prompts`` counts it once.
    """

    def __init__(self, format: str) -> None:
        self.parts = PARTS[format]
        self.sums = [0] * len(self.parts)
        self.examples = 0
        self.prompt_sum = 0
        self.prompts = 0

    def add(self, counts: Sequence[int], *, new_prompt: bool) -> None:
        """Count one example by the words of its parts."""
        self.examples += 1
        self.sums = [total + count for total, count in zip(self.sums, counts, strict=True)]
        if new_prompt:
            self.prompts += 1
            self.prompt_sum += counts[0]

    def means(self) -> dict[str, float]:
        """Return the mean number of words of each part; nothing where there are no examples."""
        if not self.examples:
            return {}
        means = {part: total / self.examples for part, total in zip(self.parts, self.sums, strict=True)}
        return {**means, "distinct_prompts": self.prompt_sum / self.prompts}

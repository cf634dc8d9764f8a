"""Mean lengths in words of what a dataset stage wrote, kept as running sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.models.chat import Messages


@dataclass
class MeanWords:
    """Words (runs without white space) by part of an example: ``prompt``, ``chosen``, ``rejected``, ``response``.

    Every example written counts once, so that a prompt of two pairs counts twice; ``distinct_prompts`` counts it once.
    """

    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, part: str, messages: Messages) -> None:
        """Count the words of all turns of one part."""
        self.words[part] += sum(len(message["content"].split()) for message in messages)
        self.texts[part] += 1

    def add_example(self, value: Mapping[str, Any]) -> None:
        """Count the parts of one line of an output file."""
        if "messages" in value:
            self.add("prompt", value["messages"][:-1])
            self.add("response", value["messages"][-1:])
        for part in ("prompt", "chosen", "rejected"):
            if part in value:
                self.add(part, value[part])

    def means(self) -> dict[str, float]:
        """Return the mean number of words of each part that occurred."""
        return {part: self.words[part] / count for part, count in sorted(self.texts.items())}

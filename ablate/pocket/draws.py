"""Deterministic randomness: every draw follows from the names and numbers it is made from."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import TypeVar

Element = TypeVar("Element")
Part = str | int | float | None


def digest(*parts: Part) -> str:
    """Return the SHA-256 hex digest of the JSON spelling of ``parts``."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


class Draw:
    """A stream of random choices seeded by the digest of ``parts``.

    Uses nothing but ``random.Random.random``, whose sequence Python guarantees for a given seed, so that the
    choices are equal on every machine, Python version and hash seed.
    """

    def __init__(self, *parts: Part) -> None:
        """Seed the stream with ``parts``."""
        self._random = random.Random(int(digest(*parts), 16)).random

    def unit(self) -> float:
        """Return a uniform number in [0, 1)."""
        return self._random()

    def below(self, limit: int) -> int:
        """Return a uniform integer in [0, limit)."""
        return int(self._random() * limit)

    def between(self, low: int, high: int) -> int:
        """Return a uniform integer in [low, high]."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``."""
        return self._random() < probability

    def pick(self, elements: Sequence[Element]) -> Element:
        """Return one element, uniformly."""
        return elements[self.below(len(elements))]

    def some(self, elements: Sequence[Element], count: int) -> list[Element]:
        """Return ``count`` different elements in random order."""
        pool = list(elements)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]

    def weighted(self, elements: Sequence[Element], weights: Sequence[float]) -> Element:
        """Return one element with probability proportional to its weight."""
        target = self._random() * sum(weights)
        for element, weight in zip(elements, weights, strict=True):
            target -= weight
            if target < 0:
                return element
        return elements[-1]

    def noise(self, spread: float) -> float:
        """Return a bell-shaped number of mean 0 and standard deviation ``spread``.

        The sum of three uniforms rather than a normal: exact arithmetic, no dependence on a maths library.
        """
        return (self._random() + self._random() + self._random() - 1.5) * 2.0 * spread

"""How responses are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn: of at most ``limit`` tokens, at temperature 0 the likeliest.

    ``stop`` strings and what follows them are cut off. ``repeat`` counts earlier passes over the same prompts.
    """

    limit: int
    stop: Sequence[str] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repeat: int = 0

"""Seeded subsets of what a suite asks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def at_most_each(
    rows: Sequence[T], limit: int, group: Callable[[T], str], stream: Callable[[str], random.Random]
) -> list[T]:
    """Return at most ``limit`` rows of each group, in their old order; ``stream`` gives a group's random numbers.

    A group's draw does not depend on the rows of other groups.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[group(row)].append(place)
    kept: set[int] = set()
    for name, own in places.items():
        kept.update(own if len(own) <= limit else stream(name).sample(own, limit))
    return [row for place, row in enumerate(rows) if place in kept]

"""Grading of responses to item rows as they are read from disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.errors import DataError
from ablate.pocket.language import Item, checks, gold_of


def item_of(row: Mapping[str, Any]) -> Item:
    """Return the item that a row of an ``items`` file describes."""
    try:
        prompt = row["prompt"][-1]["content"]
        return Item(row["id"], row["skill"], row["split"], prompt, row["spec"])
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"not an item row of the pocket world: {error!r} in a row with keys {sorted(row)}",
            hint="rows need id, skill, split, prompt (messages) and spec, as a pocket stage (what: items) writes them",
        ) from error


def grade(row: Mapping[str, Any], response: str) -> dict[str, float]:
    """Return the checks of ``response`` by name, with ``correct`` (the skill's primary measure) and ``gold``.

    Checks are 0 or 1 (fractions where a name says so); ``gold`` is in 0..2. ``answered`` is 0 where no answer
    could be read off the response.
    """
    named = checks(item_of(row), response)
    return {**named, "gold": gold_of(named)}

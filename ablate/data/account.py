"""What became of rows: counted in one way by the stage that makes a set and by its audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ablate.data.grouping import Unit
from ablate.data.records import Converted, PreferenceRecord

OTHER_PART, NOT_SAMPLED, OTHER_PROMPT = "other-part-of-split", "not-sampled", "prompt-not-in-other-set"
"""Reasons for dropping rows that nothing is wrong with."""


@dataclass
class RowAccount:
    """Rows by file, rows dropped by reason, responses, and those that are in no record by reason."""

    files: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_counters(cls, counts: Mapping[str, Any]) -> Self:
        """Return an account with the counts of :meth:`counters`."""
        named = {name: Counter(counts[name]) for name in ("files", "dropped", "left_out")}
        return cls(responses=counts["responses"], **named)

    def counters(self) -> dict[str, Any]:
        """Return all counts as JSON values, from which the account can be gone on with."""
        named = {name: dict(getattr(self, name)) for name in ("files", "dropped", "left_out")}
        return {"responses": self.responses, **named}

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.files.total()

    def take(self, unit: Unit, converted: Converted) -> int:
        """Count the responses of a row or group; returns how many of its rows are still to be kept or dropped.

        A group of rows that gives a record keeps those of its rows that gave it a response.
        """
        if not isinstance(converted, PreferenceRecord):
            return unit.size
        self.responses += len(converted.responses) + len(converted.left_out)
        self.left_out.update(converted.left_out)
        if not unit.grouped:
            return unit.size
        self.dropped.update(converted.left_out)
        return unit.size - len(converted.left_out)

    def responses_json(self) -> dict[str, Any]:
        """Return the responses as JSON values."""
        return {"in": self.responses, "left_out": dict(sorted(self.left_out.items()))}

    def nothing_left(self) -> str:
        """Say that no row is left, and why."""
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.most_common())
        return f"nothing is left of {self.rows} rows; dropped by reason: {reasons or 'there were no rows'}"

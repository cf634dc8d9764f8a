"""Labels that people or judges gave to responses, as files of outputs store them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ablate.errors import DataError
from ablate.evaluation.grading import Evidence

Compliance = Literal["full_compliance", "partial_refusal", "full_refusal", "unreadable"]
COMPLIANCE: tuple[Compliance, ...] = ("full_compliance", "partial_refusal", "full_refusal", "unreadable")


def compliance(label: str) -> Compliance:
    """What a label says of a response: XSTest's ``1_full_compliance``, ``2_full_refusal`` and ``3_partial_refusal``, or
    open-instruct's ``following`` and ``refusal``; anything else (a judge that refuses to judge) is unreadable."""
    plain = label.strip().lower().replace(" ", "_").replace("-", "_")
    name = plain.lstrip("123_")
    if name in ("full_compliance", "compliance", "following", "complied"):
        return "full_compliance"
    if name in ("partial_refusal", "partial"):
        return "partial_refusal"
    return "full_refusal" if name in ("full_refusal", "refusal", "refused") else "unreadable"


def stored_labels(evidence: Evidence, column: str) -> dict[str, str]:
    """A column's labels by item id; an empty cell is no label."""
    found = {}
    for name, rows in evidence.stored.items():
        value = next((row[column] for row in rows if row.get(column) not in (None, "")), None)
        if value is not None:
            found[name] = str(value)
    return found


def stored_number(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float | None:
    """The number in the first of the named columns that a row has; yes and no are 1 and 0, an empty cell is none.

    Raises ``DataError`` for a value that is no number.
    """
    for row in rows:
        for name in names:
            value = row.get(name)
            if value in (None, ""):
                continue
            text = str(value).strip().lower()
            if text in ("yes", "true", "no", "false"):
                return float(text in ("yes", "true"))
            try:
                return float(text)
            except ValueError:
                raise DataError(f"column {name!r} holds {value!r}, which is no number") from None
    return None

"""Access to the columns of a native row, with one error for rows of another schema."""

from __future__ import annotations

from typing import Any

from ablate.data.records import Row
from ablate.errors import DataError


def columns(row: Row, schema: str, *names: str) -> list[Any]:
    """Return the values of the named columns; :class:`DataError` when the row has another schema."""
    missing = [name for name in names if name not in row]
    if missing:
        raise DataError(
            f"a row of the schema {schema} lacks {', '.join(missing)}",
            hint=f"expected: {', '.join(names)}; found: {', '.join(map(str, row)) or 'no columns'}",
        )
    return [row[name] for name in names]


def number(value: Any) -> float | None:
    """Return ``value`` as a finite float, or None (``"N/A"``, empty, not a number, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if abs(result) < float("inf") else None

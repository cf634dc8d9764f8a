"""A table as JSON values: an object for each row, numbers in the scale in which they are displayed."""

from __future__ import annotations

import math
from typing import Any

from ablate.results.tables.table import Table


def table_json(table: Table) -> dict[str, Any]:
    """Return a table; a gap is null, its reason is in the row's ``missing``; a heading is in the rows below it.

    An infinite number is null.
    """
    rows: list[dict[str, Any]] = []
    heading = ""
    for row in table.rows:
        if row.kind == "heading":
            heading = row.cells[0].text or ""
            continue
        found: dict[str, Any] = {"row": row.kind, "heading": heading}
        missing = {}
        for column, cell in zip(table.columns, row.cells, strict=True):
            found[column.key] = cell.text if cell.value is None else finite(cell.value * column.scale)
            if cell.missing is not None:
                missing[column.key] = cell.missing
        rows.append({**found, "missing": missing})
    return {
        "name": table.name,
        "title": table.title,
        "rows": rows,
        "notes": dict(table.notes),
        "remarks": list(table.remarks),
    }


def finite(value: float) -> float | None:
    """Return a number, or null where it is infinite or undefined: JSON has neither."""
    return value if math.isfinite(value) else None

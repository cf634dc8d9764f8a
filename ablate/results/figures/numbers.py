"""The numbers of a finished table as figures take them: columns by key, names of rows."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.errors import UsageError, suggestion
from ablate.results.figures.style import plain
from ablate.results.layout.figures import HeatmapLayout, TableFigure
from ablate.results.tables.table import Row, Table


def column_indices(figure: TableFigure, table: Table) -> list[int]:
    """Return the positions of the columns that a figure shows: those named, else the average (a heat map: all).

    Raises :class:`UsageError` for a name that the table does not have.
    """
    known = [column.key for column in table.columns if column.kind in ("number", "health")]
    numbers = [column.key for column in table.columns if column.kind == "number"]
    average = next((key for key in numbers if key.startswith("average")), numbers[-1])
    keys = figure.columns or (tuple(numbers) if isinstance(figure, HeatmapLayout) else (average,))
    for key in keys:
        if key not in known:
            raise UsageError(f"figure {figure.name!r}: unknown column {key!r}", hint=suggestion(key, known))
    return [table.column_index(key) for key in keys]


def shown_rows(table: Table) -> list[Row]:
    """Return the rows with numbers of models, baselines first as in the table."""
    return [row for row in table.rows if row.kind in ("baseline", "cell")]


def has_numbers(rows: Sequence[Row], indices: Sequence[int]) -> bool:
    """Return whether any of these cells has a value."""
    return any(row.cells[index].value is not None for row in rows for index in indices)


def scaled(table: Table, row: Row, index: int) -> tuple[float | None, float | None]:
    """Return a cell's value and spread in the column's scale; null where there is none."""
    cell, scale = row.cells[index], table.columns[index].scale
    value = None if cell.value is None else cell.value * scale
    return value, None if cell.sd is None else cell.sd * scale


def label_indices(table: Table) -> list[int]:
    """Return the positions of the columns that name the rows."""
    return [index for index, column in enumerate(table.columns) if column.kind == "label"]


def row_text(row: Row, labels: Sequence[int]) -> str:
    """Return what stands in these label columns."""
    return plain(" ".join(text for index in labels if (text := row.cells[index].text)))


def row_names(table: Table, rows: Sequence[Row], leave_out: Sequence[int] = ()) -> list[str]:
    """Return each row's labels, numbers with their column's heading; what all cells share is left out."""
    labels = [index for index in label_indices(table) if index not in leave_out]
    cells = [row for row in rows if row.kind != "baseline"]
    telling = [index for index in labels if len({row.cells[index].text for row in cells}) > 1]
    names = []
    for row in rows:
        shown = labels if row.kind == "baseline" or not telling else telling
        parts = [(table.columns[index].label, row.cells[index].text or "") for index in shown]
        texts = [f"{label} {text}" if _is_number(text) else text for label, text in parts if text]
        names.append(plain(", ".join(texts)))
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def axis_label(table: Table, index: int) -> str:
    """Return a column's heading with its unit, and what its error bars are where it has any."""
    column = table.columns[index]
    unit = " (%)" if column.scale == 100.0 else ""
    has_sd = any(row.cells[index].sd is not None for row in table.rows if row.kind == "cell")
    return plain(f"{column.label}{unit}" + (", mean ± sd" if has_sd else ""))

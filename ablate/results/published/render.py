"""A published table as a table of a report: alone, in the style that it was printed in."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from ablate.results.layout.names import published_file
from ablate.results.published.check import check, sentences
from ablate.results.published.read import Published, PublishedRow
from ablate.results.tables.table import Cell, Column, Mark, Row, RowKind, Table


def published_table(published: Published) -> Table:
    """Return the table with its rows in printed order, its source, and what checking it against itself found."""
    declared = published.declared
    labels = tuple(Column(key, about.heading, "label") for key, about in declared.labels.items())
    numbers = tuple(_column(published, key) for key in declared.columns)
    rows: list[Row] = []
    previous: PublishedRow | None = None
    for row in published.rows:
        heading = row.labels[declared.headings] if declared.headings else ""
        if heading and (previous is None or previous.labels[declared.headings or ""] != heading):
            rows.append(Row("heading", (Cell(text=heading),)))
            previous = None
        rows.append(_row(published, row, previous))
        previous = row
    remarks = (*_style(published), source_sentence(published), *sentences(check(published)))
    return Table(published_file(published.name), declared.caption, (*labels, *numbers), tuple(rows), (), remarks)


def _column(published: Published, key: str) -> Column:
    about = published.declared.columns[key]
    digits = published.digits(key) if about.digits is None else about.digits
    return Column(key, about.heading, "number", unit="published", digits=digits, higher_is_better=None)


def source_sentence(published: Published) -> str:
    """Say where published numbers come from, and what a reader must know of them."""
    declared = published.declared
    note = f" {declared.note}" if declared.note else ""
    return f"Published: {declared.source}, {declared.date or 'date unrecorded'}.{note}"


def as_cell(number: Decimal | None, scale: float = 1.0) -> Cell:
    """Return a published number, which was printed times ``scale``, as a cell."""
    return Cell(missing="not published") if number is None else Cell(value=float(number) / scale)


def _row(published: Published, row: PublishedRow, previous: PublishedRow | None) -> Row:
    declared = published.declared
    kind = _kind(published, row)
    texts = []
    is_repeated = previous is not None
    for column, about in declared.labels.items():
        value = row.labels[column]
        is_repeated = is_repeated and previous is not None and previous.labels[column] == value
        texts.append("" if about.once and is_repeated else about.values.get(value, value))
    cells = [_cell(published, row, kind, column) for column in declared.columns]
    return Row(kind, (*(Cell(text=text) for text in texts), *cells))


def _kind(published: Published, row: PublishedRow) -> RowKind:
    if any(row.fits(selection) for selection in published.declared.baselines):
        return "baseline"
    is_difference = any(row.fits({item.column: item.value}) for item in published.declared.differences)
    return "delta" if is_difference else "cell"


def _cell(published: Published, row: PublishedRow, kind: RowKind, column: str) -> Cell:
    number, colour = row.numbers[column], published.declared.colour
    cell = as_cell(number)
    if number is None or colour is None or kind != ("delta" if colour.against is None else "cell"):
        return cell
    other = Decimal(0) if colour.against is None else published.select(colour.against)[0].numbers[column]
    if other is None or number == other:
        return cell
    mark: Mark = "better" if number > other else "worse"
    return replace(cell, mark=mark)


def _style(published: Published) -> list[str]:
    if published.declared.colour is None:
        return []
    against = published.declared.colour.against
    other = "zero" if against is None else " ".join(against.values())
    return [f"Blue ▲ / orange ▼: above / below {other} by plain sign, as printed; no test is meant."]

"""Published numbers under the rows of a table that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.errors import SpecError, suggestion
from ablate.results.layout import TableLayout
from ablate.results.layout.published import PublishedBeside
from ablate.results.published.check import row_name
from ablate.results.published.read import Published, PublishedRow, read_published
from ablate.results.published.render import as_cell, source_sentence
from ablate.results.tables.rows import Group
from ablate.results.tables.table import MINUS, Cell, Column, Row


@dataclass(frozen=True)
class Beside:
    """Published rows by the number of the row of ours that they follow, and what is said of them."""

    rows: dict[int, Row]
    remarks: tuple[str, ...]


def published_beside(
    layout: TableLayout, entries: Sequence[object], rows: Sequence[Row], columns: Sequence[Column]
) -> Beside:
    """Return the published row, or ours less it, of every row that has one.

    Raises :class:`SpecError` where the layout names a column that the published table or ours does not have.
    """
    declared = layout.published
    if declared is None:
        return Beside({}, ())
    published = read_published(declared.table)
    _check(layout.name, declared, published, columns)
    found: dict[int, Row] = {}
    absent: list[str] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, Group):
            continue
        row = _row_of(declared, published, entry)
        if row is None:
            absent += [" ".join(filter(None, entry.labels))] if not entry.is_baseline else []
        else:
            found[index] = _row(declared, published, row, rows[index], columns)
    remarks = [source_sentence(published)]
    remarks += [f"Without a published row: {', '.join(absent)}."] if absent else []
    return Beside(found, tuple(remarks))


def _row_of(declared: PublishedBeside, published: Published, group: Group) -> PublishedRow | None:
    if group.is_baseline:
        name = next(iter(group.members.values())).baseline
        selection = declared.baselines.get(name)
    else:
        selection = {}
        for column, about in declared.rows.items():
            value = group.axes.get(about.axis)
            selection[column] = "" if value is None else about.values.get(str(value), str(value))
    matching = published.select(selection) if selection else []
    return matching[0] if len(matching) == 1 else None


def _row(
    declared: PublishedBeside, published: Published, row: PublishedRow, own: Row, columns: Sequence[Column]
) -> Row:
    is_difference = declared.show == "difference"
    name = f"Δ ours {MINUS} published" if is_difference else f"published: {row_name(published, row)}"
    cells = [Cell(text=name), *(Cell(text="") for _ in columns[1:])]
    for index, column in enumerate(columns):
        theirs = declared.columns.get(column.key)
        if theirs is None:
            continue
        # proportions are published in percent, however ours are written
        cell = as_cell(row.numbers[theirs], 100.0 if column.unit == "proportion" else column.scale)
        value = own.cells[index].value
        if is_difference:
            gap = "one of the two numbers is missing"
            both = value is not None and cell.value is not None
            cell = Cell(value=(value or 0.0) - (cell.value or 0.0)) if both else Cell(missing=gap)
        cells[index] = cell
    return Row("delta" if is_difference else "published", tuple(cells))


def _check(name: str, declared: PublishedBeside, published: Published, columns: Sequence[Column]) -> None:
    keys = [column.key for column in columns if column.kind == "number"]
    checks = [("column", ours, keys) for ours in declared.columns]
    checks += [("published column", theirs, list(published.declared.columns)) for theirs in declared.columns.values()]
    checks += [("published label", label, list(published.declared.labels)) for label in declared.rows]
    for kind, wanted, known in checks:
        if wanted not in known:
            raise SpecError(f"table {name!r}: unknown {kind} {wanted!r}", hint=suggestion(wanted, known))

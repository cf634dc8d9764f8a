"""A table as it is printed: lines of headings above lines of text, transposed where the table asks for it.

All that prints a table for people reads this; files of data (CSV, JSON) hold the table as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ablate.results.tables.table import CellText, Column, ColumnKind, RowKind, Table, cell_text


@dataclass(frozen=True)
class Head:
    """A heading over ``width`` columns."""

    text: CellText
    width: int = 1


@dataclass(frozen=True)
class Entry:
    """A printed cell, and the place in the table that it is from; ``kind`` is that of the table's row."""

    text: CellText
    row: int
    column: int
    kind: RowKind
    is_number: bool = False


@dataclass(frozen=True)
class Line:
    """A line of cells, or a heading (without cells) over the lines below it."""

    kind: RowKind
    entries: tuple[Entry, ...] = ()
    heading: str = ""


@dataclass(frozen=True)
class Grid:
    """``header`` has lines of headings, the last of them one for each column; ``kinds`` are those of the columns."""

    kinds: tuple[ColumnKind, ...]
    header: tuple[tuple[Head, ...], ...]
    lines: tuple[Line, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.kinds)

    def column(self, index: int) -> list[Entry]:
        """Return the entries of one column, from top to bottom."""
        return [line.entries[index] for line in self.lines if line.entries]

    def flat_header(self) -> list[str]:
        """Return one heading a column, what stands above it included."""
        levels = [[head.text.plain() for head in line for _ in range(head.width)] for line in self.header]
        return [": ".join(filter(None, column)) for column in zip(*levels, strict=True)]


def printed(table: Table) -> Grid:
    """Return the table as it is printed."""
    return _transposed(table) if table.transpose else _upright(table)


def _upright(table: Table) -> Grid:
    header = [tuple(Head(CellText(_headings(column)[-1])) for column in table.columns)]
    if any(column.headings for column in table.columns):
        shared = groupby(table.columns, key=lambda column: _headings(column)[0] if column.headings else "")
        header.insert(0, tuple(Head(CellText(text), len(list(columns))) for text, columns in shared))
    width = range(len(table.columns))
    lines = [
        Line("heading", heading=row.cells[0].text or "")
        if row.kind == "heading"
        else Line(row.kind, tuple(_entry(table, number, index) for index in width))
        for number, row in enumerate(table.rows)
    ]
    return Grid(tuple(column.kind for column in table.columns), tuple(header), tuple(lines))


def _transposed(table: Table) -> Grid:
    """Columns as lines: what names a row stands above its numbers, what names a column before them."""
    rows = [number for number, row in enumerate(table.rows) if row.kind != "heading"]
    stub = 2 if any(column.headings for column in table.columns) else 1
    lines = []
    above = ""
    for index, column in enumerate(table.columns):
        if column.kind == "label":
            continue
        heading, *own = _headings(column)
        names = ["" if own and heading == above else heading, *own, ""][:stub]
        above = heading if own else ""
        labels = [Entry(CellText(name), 0, index, "cell") for name in names]
        lines.append(Line("cell", (*labels, *(_entry(table, number, index) for number in rows))))
    kinds: list[ColumnKind] = ["label"] * stub
    kinds += ["number"] * len(rows)
    return Grid(tuple(kinds), _names_above(table, stub), tuple(lines))


def _names_above(table: Table, stub: int) -> tuple[tuple[Head, ...], ...]:
    """A line for each column of names, below one for the headings over groups of rows; neighbours share a name."""
    names = [index for index, column in enumerate(table.columns) if column.kind == "label"]
    levels: list[tuple[CellText, ...]] = []
    group = ""
    for row in table.rows:
        if row.kind == "heading":
            group = row.cells[0].text or ""
        else:
            group = "" if row.kind == "detectable" else group
            levels.append((CellText(group), *(cell_text(table, row, index) for index in names)))
    titles = ["", *(table.columns[index].label for index in names)]
    header = []
    for level in range(0 if any(texts[0].value for texts in levels) else 1, len(titles)):
        shared = groupby(levels, key=lambda texts: texts[: level + 1])
        heads = [Head(texts[-1], len(list(alike))) for texts, alike in shared]
        if level == len(names):
            heads = [Head(texts[level]) for texts in levels]
        header.append((Head(CellText(titles[level])), *(Head(CellText("")),) * (stub - 1), *heads))
    return tuple(header)


def _headings(column: Column) -> tuple[str, ...]:
    return column.headings or (column.label,)


def _entry(table: Table, number: int, index: int) -> Entry:
    row = table.rows[number]
    cell = row.cells[index]
    is_number = table.columns[index].kind != "label" and cell.value is not None and cell.text is None
    return Entry(cell_text(table, row, index), number, index, row.kind, is_number)

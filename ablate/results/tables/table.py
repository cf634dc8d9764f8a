"""A table as data: columns over rows of typed cells. Numbers become text here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["better", "worse"]
RowKind = Literal["heading", "baseline", "cell", "delta", "detectable"]

MINUS = "−"
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column: its key in files, its heading, what it holds, and how its numbers are written.

    ``scale`` multiplies numbers before they are written (100 for proportions in percent).
    """

    key: str
    label: str
    kind: Literal["label", "attribute", "number", "health"]
    unit: str = ""
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Cell:
    """One cell: a text, or a value with its spread, or a gap with the reason.

    ``value`` and ``sd`` are unscaled; ``n`` counts distinct runs; ``p`` is corrected over the table; ``mark`` is set
    only where ``p`` is below the table's alpha; ``notes`` are keys of the table's footnotes.
    """

    text: str | None = None
    value: float | None = None
    sd: float | None = None
    n: int = 0
    mark: Mark | None = None
    p: float | None = None
    difference: float | None = None
    missing: str | None = None
    notes: tuple[str, ...] = ()


SMALLEST_P = 1e-4
"""Below it p is written as less than it; files have the number."""


def p_cell(p: float, n: int) -> Cell:
    """Return the cell of a p-value over ``n`` runs."""
    return Cell(text=f"< {SMALLEST_P:.4f}" if p < SMALLEST_P else None, value=p, n=n)


@dataclass(frozen=True)
class Row:
    """One row; ``cells`` has an entry for each column (a heading has one cell over the whole width)."""

    kind: RowKind
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A finished table. ``notes`` are marked footnotes by key; ``remarks`` hold for the whole table."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    def column_index(self, key: str) -> int:
        """Return the position of the column with this key; raises KeyError when there is none."""
        for index, column in enumerate(self.columns):
            if column.key == key:
                return index
        raise KeyError(key)


@dataclass(frozen=True)
class CellText:
    """A cell as text: the number (or label), its spread (without the sign), its mark and its footnote keys."""

    value: str
    spread: str = ""
    mark: Mark | None = None
    notes: tuple[str, ...] = ()

    def plain(self) -> str:
        """The whole cell without colours: ``55.3 ± 0.4 ▲ a``."""
        arrow = {"better": " ▲", "worse": " ▼", None: ""}[self.mark]
        spread = f" ± {self.spread}" if self.spread else ""
        notes = f" [{','.join(self.notes)}]" if self.notes else ""
        return f"{self.value}{spread}{arrow}{notes}"


def number_text(value: float, column: Column, *, signed: bool = False) -> str:
    """Write one number in its column's format; a true minus sign, no negative zero."""
    digits = f"{abs(value) * column.scale:,.{column.digits}f}".replace(",", " ")
    is_zero = not any(character in "123456789" for character in digits)
    sign = "" if is_zero else MINUS if value < 0 else "+" if signed else ""
    return sign + digits


def cell_text(table: Table, row: Row, index: int) -> CellText:
    """Write the cell of ``row`` in column ``index``."""
    cell, column = row.cells[index], table.columns[index]
    if cell.text is not None:
        return CellText(cell.text, notes=cell.notes)
    if cell.value is None:
        return CellText(MISSING if column.kind in ("number", "health", "attribute") else "", notes=cell.notes)
    value = number_text(cell.value, column, signed=row.kind == "delta" and column.kind == "number")
    spread = "" if cell.sd is None else number_text(cell.sd, column)
    return CellText(value, spread, cell.mark, cell.notes)

"""A table as data: columns over rows of typed cells. Numbers become text here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scipy.special import stdtrit

Mark = Literal["better", "worse"]
Rank = Literal["best", "second"]
RowKind = Literal["heading", "baseline", "cell", "delta", "published", "detectable"]
ColumnKind = Literal["label", "attribute", "number", "health"]
Spread = Literal["sd", "stderr", "ci", "none"]

MINUS = "−"
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column: its key in files, its whole heading, what it holds, and how its numbers are written.

    ``headings`` are, of a column that shares a heading with its neighbours, that one and its own below it. ``scale``
    multiplies numbers before they are written (100 for proportions in percent).
    """

    key: str
    label: str
    kind: ColumnKind
    unit: str = ""
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool | None = True
    is_difference: bool = False
    headings: tuple[str, str] | None = None

    def under(self, heading: str | None) -> Column:
        """Return the column below a heading that its neighbours may share; the column itself without one."""
        if not heading:
            return self
        return replace(self, label=f"{heading}: {self.label}", headings=(heading, self.label))


@dataclass(frozen=True)
class Cell:
    """One cell: a text, or a value with its spread, or a gap with the reason.

    ``value`` and ``sd`` are unscaled; ``n`` counts distinct runs; ``p`` is corrected over the table; ``mark`` is set
    only where ``p`` is below the table's alpha, or where the table says that it is a plain sign; ``rank`` is the place
    in the column; ``notes`` are keys of the table's footnotes.
    """

    text: str | None = None
    value: float | None = None
    sd: float | None = None
    n: int = 0
    mark: Mark | None = None
    rank: Rank | None = None
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
    """One row; ``cells`` has an entry for each column (a heading has one cell over the whole width).

    ``axes`` are those its runs share (a baseline's name is its ``baseline``); ``runs`` are the stages of its runs. A
    difference has those of the row it is taken from, and of the row that is taken off as ``against``.
    """

    kind: RowKind
    cells: tuple[Cell, ...]
    axes: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A finished table. ``notes`` are marked footnotes by key; ``remarks`` hold for the whole table.

    ``spread`` is what is written behind means over runs; ``siunitx`` whether LaTeX aligns numbers with that package;
    ``transpose`` whether columns are printed as rows.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    spread: Spread = "sd"
    siunitx: bool = False
    transpose: bool = False

    @property
    def is_ranked(self) -> bool:
        """Whether bold means the best of a column."""
        return any(cell.rank is not None for row in self.rows for cell in row.cells)

    def column_index(self, key: str) -> int:
        """Return the position of the column with this key; raises KeyError when there is none."""
        for index, column in enumerate(self.columns):
            if column.key == key:
                return index
        raise KeyError(key)


@dataclass(frozen=True)
class CellText:
    """A cell as text: the number (or label), its spread (without the sign), its mark, rank and footnote keys."""

    value: str
    spread: str = ""
    mark: Mark | None = None
    rank: Rank | None = None
    notes: tuple[str, ...] = ()

    def plain(self) -> str:
        """The whole cell without colours: ``55.3 ± 0.4 ▲ a``."""
        arrow = {"better": " ▲", "worse": " ▼", None: ""}[self.mark]
        spread = f" ± {self.spread}" if self.spread else ""
        notes = f" [{','.join(self.notes)}]" if self.notes else ""
        return f"{self.value}{spread}{arrow}{notes}"


def number_text(value: float, column: Column, *, signed: bool = False) -> str:
    """Write one number in its column's format; a true minus sign, no negative zero.

    What the order of a sum leaves in the last bits is rounded away first: 51.75 is the same text in every table.
    """
    exact = round(abs(value) * column.scale, column.digits + 6)
    digits = f"{exact:,.{column.digits}f}".replace(",", " ")
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
    is_signed = column.kind == "number" and (row.kind == "delta" or column.is_difference) and row.kind != "detectable"
    value = number_text(cell.value, column, signed=is_signed)
    width = half_width(cell, table.spread)
    return CellText(value, "" if width is None else number_text(width, column), cell.mark, cell.rank, cell.notes)


def half_width(cell: Cell, spread: Spread) -> float | None:
    """Return what is written behind a mean over runs: sd, sd / sqrt(n), t(0.975, n - 1) times that; None for one."""
    if cell.sd is None or spread == "none":
        return None
    if spread == "sd":
        return cell.sd
    stderr = cell.sd / math.sqrt(cell.n)
    return stderr if spread == "stderr" else float(stdtrit(cell.n - 1, 0.975)) * stderr

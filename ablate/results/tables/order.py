"""The order of rows by their numbers, and the best of each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablate.results.layout import TableLayout
from ablate.results.long import Results
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.columns import Measured
from ablate.results.tables.numbers import run_value
from ablate.results.tables.rows import Group
from ablate.results.tables.sides import column_sides
from ablate.results.tables.table import Cell, Column, Rank, Row, number_text

_RANKS: tuple[Rank, ...] = ("best", "second")


def sorted_groups(
    results: Results, layout: TableLayout, groups: Sequence[Group], measured: Sequence[Measured]
) -> list[Group]:
    """Return the rows in the layout's order of numbers, within their headings; rows without a number come last."""
    if layout.sort is None:
        return list(groups)
    column = next(item for item in measured if item.column.key == layout.sort.column)
    sign = -1.0 if layout.sort.descending else 1.0
    headings = list(dict.fromkeys(group.heading for group in groups))

    def key(group: Group) -> tuple[int, bool, float]:
        runs = column_sides(layout, groups, group, column).first.members.values()
        values = [value for run in runs if (value := run_value(results, run, column)[0]) is not None]
        return headings.index(group.heading), not values, sign * mean_sd(values)[0] if values else 0.0

    return sorted(groups, key=key)


def ranked(rows: Sequence[Row], columns: Sequence[Column], places: int) -> list[Row]:
    """Mark the best (and second best) numbers of each column, baselines among them.

    Numbers that are printed alike are equal. Columns without a better side, and those of differences, have no best.
    """
    changed = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        if column.kind != "number" or column.higher_is_better is None or column.is_difference:
            continue
        cells = [(number, row.cells[index]) for number, row in enumerate(rows) if row.kind in ("cell", "baseline")]
        texts = {number: number_text(cell.value, column) for number, cell in cells if cell.value is not None}
        best = sorted(texts, key=lambda number: _value(rows[number].cells[index]), reverse=column.higher_is_better)
        order = list(dict.fromkeys(texts[number] for number in best))[:places]
        for number, text in texts.items():
            if text in order:
                rank = _RANKS[order.index(text)]
                changed[number][index] = replace(changed[number][index], rank=rank)
    return [replace(row, cells=tuple(cells)) for row, cells in zip(rows, changed, strict=True)]


def _value(cell: Cell) -> float:
    return 0.0 if cell.value is None else cell.value

"""The order of rows by their numbers, and the best of each column."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ablate.results.layout import TableLayout
from ablate.results.layout.tables import Pattern
from ablate.results.long import Results
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.columns import Measured
from ablate.results.tables.numbers import run_value
from ablate.results.tables.rows import OTHER, Group
from ablate.results.tables.sides import column_sides
from ablate.results.tables.table import Cell, Column, Rank, Row, number_text

_RANKS: tuple[Rank, ...] = ("best", "second")


def sorted_groups(
    results: Results, layout: TableLayout, groups: Sequence[Group], measured: Sequence[Measured]
) -> list[Group]:
    """Return the rows under the headings of their numbers' patterns, and in the order of their numbers below these.

    Rows without a number come last. Without patterns and order the rows are as they were.
    """
    columns = {item.column.key: item for item in measured}

    def number(group: Group, key: str) -> float | None:
        """A row's number as it is printed."""
        column = columns[key]
        runs = column_sides(layout, groups, group, column).first.members.values()
        values = [value for run in runs if (value := run_value(results, run, column)[0]) is not None]
        return mean_sd(values)[0] * column.column.scale if values else None

    patterns = layout.groups.patterns if layout.groups else ()
    if patterns:
        groups = [replace(group, heading=_heading(patterns, group, number)) for group in groups]
        order = [*(pattern.heading for pattern in patterns), OTHER]
        groups = sorted(groups, key=lambda group: order.index(group.heading))
    if layout.sort is None:
        return list(groups)
    sorting, sign = layout.sort, -1.0 if layout.sort.descending else 1.0
    headings = list(dict.fromkeys(group.heading for group in groups))

    def key(group: Group) -> tuple[int, bool, float]:
        value = number(group, sorting.column)
        return headings.index(group.heading), value is None, sign * (value or 0.0)

    return sorted(groups, key=key)


def _heading(patterns: Sequence[Pattern], group: Group, number: Callable[[Group, str], float | None]) -> str:
    """The heading of the first pattern that fits; a row without one of its numbers fits none."""
    for pattern in patterns:
        least = [(number(group, key), bound) for key, bound in pattern.at_least.items()]
        most = [(number(group, key), bound) for key, bound in pattern.below.items()]
        fits = all(value is not None and value >= bound for value, bound in least)
        if fits and all(value is not None and value < bound for value, bound in most):
            return pattern.heading
    return OTHER


def ranked(rows: Sequence[Row], columns: Sequence[Column], places: int, apart: Collection[str]) -> list[Row]:
    """Mark the best (and second best) numbers of each column, baselines among them.

    Numbers that are printed alike are equal. Numbers with a footnote ``apart`` (another protocol) take no part. Columns
    without a better side, and those of differences, have no best.
    """
    changed = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        if column.kind != "number" or column.higher_is_better is None or column.is_difference:
            continue
        cells = [(number, row.cells[index]) for number, row in enumerate(rows) if row.kind in ("cell", "baseline")]
        texts = {
            number: number_text(cell.value, column)
            for number, cell in cells
            if cell.value is not None and not set(cell.notes) & set(apart)
        }
        best = sorted(texts, key=lambda number: _value(rows[number].cells[index]), reverse=column.higher_is_better)
        order = list(dict.fromkeys(texts[number] for number in best))[:places]
        for number, text in texts.items():
            if text in order:
                rank = _RANKS[order.index(text)]
                changed[number][index] = replace(changed[number][index], rank=rank)
    return [replace(row, cells=tuple(cells)) for row, cells in zip(rows, changed, strict=True)]


def _value(cell: Cell) -> float:
    return 0.0 if cell.value is None else cell.value

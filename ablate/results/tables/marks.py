"""Which cells of a table are tested, what the corrected tests say of them, and what they could have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ablate.results.layout import Compare, TableLayout
from ablate.results.long import Results
from ablate.results.statistics.corrections import adjusted
from ablate.results.statistics.paired import PairedTest, pool_seeds
from ablate.results.statistics.power import minimum_detectable_difference
from ablate.results.tables.columns import Measured
from ablate.results.tables.compare import Comparer, Pairs, Untested
from ablate.results.tables.table import Cell, Column, Mark, Row, number_text


@dataclass(frozen=True)
class Tested:
    """A test of one cell, by its place in the table; ``alike`` is the row's kind and method, see ``pool_seeds``."""

    row: int
    column: int
    alike: tuple[str, str]
    outcome: PairedTest | Untested


class TableTests:
    """The paired tests of a table, collected row by row."""

    def __init__(self, results: Results, layout: TableLayout, measured: Sequence[Measured]) -> None:
        self._comparer = Comparer(results)
        self._measured = measured
        self._tested: list[Tested] = []

    def add(self, row: int, column: int, pairs: Pairs | str, alike: tuple[str, str]) -> None:
        """Test one cell; pairs given as a text say why there are none."""
        outcome = Untested(pairs) if isinstance(pairs, str) else self._comparer.test(pairs, self._measured[column])
        if outcome is not None:
            self._tested.append(Tested(row, column, alike, outcome))

    def finish(self) -> list[Tested]:
        """Return all tests, the variance between seeds pooled within each column."""
        finished: list[Tested] = []
        for column in range(len(self._measured)):
            own = [item for item in self._tested if item.column == column]
            done = _done(own)
            pooled = iter(pool_seeds([test for _, test in done], [item.alike for item, _ in done]))
            finished += [
                replace(item, outcome=next(pooled)) if isinstance(item.outcome, PairedTest) else item for item in own
            ]
        return finished


def mark_rows(
    rows: Sequence[Row], columns: Sequence[Column], tested: Sequence[Tested], compare: Compare, offset: int
) -> list[Row]:
    """Set p (corrected over all tests of the table) and, where it is below alpha, the mark."""
    done = _done(tested)
    p_values = adjusted([test.p for _, test in done], compare.correction)
    changed = [list(row.cells) for row in rows]
    for (item, test), p in zip(done, p_values, strict=True):
        column = columns[offset + item.column]
        cell = changed[item.row][offset + item.column]
        mark = _mark(test.estimate, column) if compare.colour == "test" and p < compare.alpha else None
        changed[item.row][offset + item.column] = replace(cell, p=p, difference=test.estimate, mark=mark)
    return [replace(row, cells=tuple(cells)) for row, cells in zip(rows, changed, strict=True)]


def sign_rows(
    rows: Sequence[Row], columns: Sequence[Column], differences: Mapping[tuple[int, int], float], offset: int
) -> list[Row]:
    """Mark cells by the plain sign of their difference, as (row, column of numbers): what no test has looked at.

    A difference that is printed as zero has no sign.
    """
    changed = [list(row.cells) for row in rows]
    for (row, place), difference in differences.items():
        column = columns[offset + place]
        is_zero = number_text(difference, column) == number_text(0.0, column)
        mark = None if is_zero else _mark(difference, column)
        changed[row][offset + place] = replace(changed[row][offset + place], mark=mark)
    return [replace(row, cells=tuple(cells)) for row, cells in zip(rows, changed, strict=True)]


def detectable_row(
    columns: Sequence[Column], tested: Sequence[Tested], compare: Compare, rows: Sequence[Row], offset: int
) -> Row | None:
    """Median over each column's comparisons with the baseline (the differences, where there is no baseline).

    None where no comparison has a spread to reckon with.
    """
    done = _done(tested)
    if not any(test.stderr > 0 for _, test in done):
        return None
    with_baseline = [pair for pair in done if rows[pair[0].row].kind == "cell"] or done
    alpha = compare.alpha / (1 if compare.correction == "none" else len(done))
    cells = [Cell(text="Detectable difference" if index == 0 else "") for index in range(len(columns))]
    for index in range(len(columns)):
        found = [
            minimum_detectable_difference(test.stderr, test.df, alpha=alpha, power=compare.power)
            for item, test in with_baseline
            if item.column + offset == index and test.stderr > 0
        ]
        if found:
            cells[index] = Cell(value=float(np.median(found)), n=len(found))
    return Row("detectable", tuple(cells))


def _done(tested: Sequence[Tested]) -> list[tuple[Tested, PairedTest]]:
    return [(item, item.outcome) for item in tested if isinstance(item.outcome, PairedTest)]


def _mark(difference: float, column: Column) -> Mark | None:
    if column.higher_is_better is None or difference == 0.0:
        return None
    return "better" if (difference > 0) == column.higher_is_better else "worse"

"""A comparison as tables."""

from __future__ import annotations

import json

from ablate.results.comparison.compare import Compared, Comparison, TestName
from ablate.results.statistics.effect_size import Interval
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table, p_cell

_WORDS = {
    "paired": "exact sign-flip test over examples with one run, t-test with seeds and examples as random effects with"
    " several (each difference by its own variance: a table of the whole experiment pools it)",
    "mcnemar": "McNemar's exact test",
    "bootstrap": "bootstrap over seeds and examples, 10,000 resamples",
}

_D_Z = "the difference in standard deviations of the differences between examples (d_z)"
_SIZES = {"paired": _D_Z, "mcnemar": "the odds that a changed answer is right on the first side", "bootstrap": _D_Z}


def config_table(found: Comparison) -> Table:
    """Return the keys in which the two sides' configurations differ."""
    columns = (
        Column("key", "Key", "label"),
        Column("first", "First", "label"),
        Column("second", "Second", "label"),
    )
    rows = tuple(
        Row("cell", (Cell(text=item.key), Cell(text=_value(item.first)), Cell(text=_value(item.second))))
        for item in found.config
    )
    remarks = () if rows else ("Their configurations are the same.",)
    return Table(
        "configuration", f"Configuration (first: {found.first}; second: {found.second})", columns, rows, (), remarks
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def numbers_table(found: Comparison, test: TestName) -> Table:
    """Return the numbers of both sides, their difference (first - second) with its interval, and its test."""
    notes = Notes()
    number = {"digits": 2, "higher_is_better": None}
    columns = (
        Column("column", "Column", "label"),
        Column("first", "First", "number", **number),  # type: ignore[arg-type]
        Column("second", "Second", "number", **number),  # type: ignore[arg-type]
        *(
            Column(key, label, "number", **number)  # type: ignore[arg-type]
            for key, label in (("difference", "Difference"), ("low", "from"), ("high", "to"))
        ),
        Column("p", "p", "number", digits=4, higher_is_better=None),
        Column("size", "Size", "number", **number),  # type: ignore[arg-type]
        Column("pairs", "Pairs", "attribute", digits=0),
    )
    rows: list[Row] = []
    heading = ""
    for item in found.numbers:
        if item.row != heading:
            heading = item.row
            rows.append(Row("heading", (Cell(text=heading),)))
        rows.append(_row(item, notes))
    tests = sum(item.p is not None for item in found.numbers)
    remarks = [
        f"Difference: first less second, with its 95 % interval (not corrected); p: {_WORDS[test]};"
        f" Holm-corrected over {tests} tests. Size: {_SIZES[test]}."
    ] if tests else []  # fmt: skip
    if not found.numbers:
        remarks.append("No number is there on both sides.")
    return Table("results", "Results", columns, tuple(rows), notes.all(), (*remarks, *found.remarks))


def _row(item: Compared, notes: Notes) -> Row:
    keys = (notes.key(item.reason),) if item.reason else ()

    def cells(one: Interval | None) -> list[Cell]:
        gap = Cell(missing=item.reason)
        return [gap] * 3 if one is None else [Cell(value=value, n=1) for value in (one.estimate, one.low, one.high)]

    sides = [Cell(value=mean, sd=sd, n=1) for mean, sd in (item.first, item.second)]
    p = Cell(missing=item.reason, notes=keys) if item.p is None else p_cell(item.p, 1)
    size = Cell(text="") if item.size is None else Cell(value=item.size.estimate, n=1)
    return Row("cell", (
        Cell(text=item.measured.column.label), *sides, *cells(item.difference), p, size, Cell(value=float(item.pairs)),
    ))  # fmt: skip

"""From results and a declared table to a finished one: numbers, tests, marks, footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.results.layout import Health, TableLayout
from ablate.results.long import Results
from ablate.results.published.beside import published_beside
from ablate.results.tables.columns import Measured, expand_columns, key_title
from ablate.results.tables.facts import attribute_cell, health_cell, label_notes
from ablate.results.tables.marks import TableTests, detectable_row, mark_rows, sign_rows
from ablate.results.tables.matched import Comparison, matched_remarks
from ablate.results.tables.notes import Notes
from ablate.results.tables.numbers import difference_cell, mean_difference, number_cell, tested_pairs
from ablate.results.tables.order import ranked, sorted_groups
from ablate.results.tables.protocols import FOREIGN, protocol_notes
from ablate.results.tables.remarks import (
    averages_remarks,
    best_remark,
    health_remarks,
    judges_remarks,
    not_run_remark,
    seeds_remark,
    starts_remark,
    tests_remarks,
    transposed_remark,
)
from ablate.results.tables.rows import DeltaRow, Group, baseline_groups, baseline_pairs, cell_groups, delta_rows
from ablate.results.tables.rules import rule_rows
from ablate.results.tables.sides import column_sides
from ablate.results.tables.table import Cell, Column, Row, RowKind, Table
from ablate.results.tables.tuning import tuning_remarks

_LENGTH = "mean_length"
_WIN_RATES = ("win_rate", "winrate")

Entry = str | Group | DeltaRow


def build_table(results: Results, layout: TableLayout) -> Table:
    """Return the finished table; what is missing is marked in its cells and explained in its footnotes."""
    measured = expand_columns(layout, results)
    lengths = _lengths(results, layout, measured)
    layout = layout.model_copy(update={"health": (*layout.health, *lengths)})
    baselines = baseline_groups(results, layout)
    cells = sorted_groups(results, layout, cell_groups(results, layout), measured)
    build = _Build(results, layout, measured, [*baselines, *cells])
    entries = _entries(layout, baselines, cells)
    columns, offset = _columns(layout, measured), len(layout.rows) + len(layout.attributes)
    rows = [build.row(index, entry) for index, entry in enumerate(entries)]
    tested = build.tests.finish()
    rows = mark_rows(rows, columns, tested, layout.compare, offset)
    if layout.compare.colour == "sign":
        rows = sign_rows(rows, columns, build.differences, offset)
    rows = protocol_notes(results, rows, entries, measured, build.notes, offset)
    apart = [key for key, text in build.notes.all() if text.startswith(FOREIGN)]
    rows = ranked(rows, columns, layout.best, apart)
    detectable = detectable_row(columns, tested, layout.compare, rows, offset) if layout.detectable else None
    beside = published_beside(layout, entries, rows, columns)
    rows = [item for index, row in enumerate(rows) for item in (row, beside.rows.get(index)) if item is not None]
    rows = [*rule_rows(results, layout, columns, measured, offset), *rows, *([detectable] if detectable else [])]
    outcomes = [(columns[offset + item.column], item.outcome) for item in tested]
    remarks = [
        *transposed_remark(layout),
        *seeds_remark(_by_column(build, cells), layout),
        *best_remark(layout),
        *tests_remarks(outcomes, layout, has_detectable=bool(detectable)),
        *averages_remarks(results, layout, measured),
        *(starts_remark(baselines, cells, layout) if tested else not_run_remark(results, layout)),
        *matched_remarks(results, build.comparisons),
        *health_remarks(results, layout, measured, build.groups),
        *judges_remarks(results, (measure.suite for item in measured for measure in item.weights)),
        *tuning_remarks(results, cells),
        *beside.remarks,
    ]
    order = _beside(columns, measured, lengths)
    return Table(
        layout.name,
        layout.title,
        tuple(columns[index] for index in order),
        tuple(row if row.kind == "heading" else replace(row, cells=tuple(row.cells[i] for i in order)) for row in rows),
        build.notes.all(),
        tuple(remarks),
        spread=layout.format.spread,
        siunitx=layout.format.siunitx,
        transpose=layout.transpose,
    )


@dataclass
class _Build:
    """What rows of one table share while they are made: its runs, its footnotes, the tests collected so far.

    ``differences`` are of means, by row and column: what a colour by plain sign goes by.
    """

    results: Results
    layout: TableLayout
    measured: Sequence[Measured]
    groups: Sequence[Group]
    notes: Notes = field(default_factory=Notes)
    differences: dict[tuple[int, int], float] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tests = TableTests(self.results, self.layout, self.measured)
        names = {item.baseline for group in self.groups for item in group.members.values()}
        self.expected = max((len(group.members) for group in self.groups if not group.is_baseline), default=0)
        self.is_compared = self.layout.compare.to in names

    def _match_on(self, measured: Measured) -> tuple[str, ...]:
        match_on = measured.minus.match_on if measured.minus else None
        return tuple(row.axis for row in self.layout.rows) if match_on is None else match_on

    def row(self, index: int, entry: Entry) -> Row:
        """Return one row of the table, its tests collected."""
        if isinstance(entry, str):
            return Row("heading", (Cell(text=entry),))
        if isinstance(entry, DeltaRow):
            return self._delta_row(index, entry)
        cells = [Cell(text=label) for label in entry.labels]
        if not entry.is_baseline:
            texts = label_notes(self.results, entry, self.expected)
            cells[0] = replace(cells[0], notes=tuple(self.notes.key(text) for text in texts))
        cells += [attribute_cell(self.results, entry, attribute, self.notes) for attribute in self.layout.attributes]
        cells += [self._number(index, entry, place) for place in range(len(self.measured))]
        cells += [health_cell(self.results, entry, self.measured, health) for health in self.layout.health]
        kind: RowKind = "baseline" if entry.is_baseline else "cell"
        return Row(kind, tuple(cells), _shared_axes(self.layout, entry), _stages(entry))

    def _number(self, index: int, group: Group, place: int) -> Cell:
        measured = self.measured[place]
        sides = column_sides(self.layout, self.groups, group, measured)
        cell = number_cell(self.results, self.layout, sides, measured, self.notes)
        if group.is_baseline or cell.value is None:
            return cell
        if sides.second is not None:
            match_on = self._match_on(measured)
            self.comparisons.append(Comparison(measured.column.label, sides.first, sides.second, match_on))
            alike = ("delta", f"{_method(sides.first)} {_method(sides.second)}")
            self.tests.add(index, place, tested_pairs(sides.first, sides.second), alike)
            self.differences[index, place] = cell.value
        elif measured.minus is not None:
            self.tests.add(index, place, "a difference of two measures of the same run", ("cell", ""))
            self.differences[index, place] = cell.value
        elif self.is_compared:
            pairs = baseline_pairs(self.results, self.layout, sides.first)
            self.tests.add(index, place, pairs, ("cell", _method(sides.first)))
            difference = None if isinstance(pairs, str) else mean_difference(self.results, pairs, measured)
            if difference is not None:
                self.differences[index, place] = difference
        return cell

    def _delta_row(self, index: int, delta: DeltaRow) -> Row:
        cells = [Cell(text=label) for label in delta.labels]
        cells += [Cell(text="") for _ in self.layout.attributes]
        for place, measured in enumerate(self.measured):
            if measured.minus is not None:
                cells.append(Cell(text=""))
                continue
            first, second = (
                column_sides(self.layout, self.groups, group, measured).first for group in (delta.first, delta.second)
            )
            cell = difference_cell(self.results, first, second, measured, self.notes)
            self.tests.add(index, place, tested_pairs(first, second), ("delta", f"{_method(first)} {_method(second)}"))
            if cell.value is not None:
                self.differences[index, place] = cell.value
            cells.append(cell)
        cells += [Cell(text="") for _ in self.layout.health]
        self.comparisons.append(Comparison(delta.name, delta.first, delta.second, delta.match_on))
        axes = _shared_axes(self.layout, delta.first)
        return Row("delta", tuple(cells), axes, _stages(delta.first), _stages(delta.second))


def _stages(group: Group) -> tuple[str, ...]:
    return tuple(subject.stage for subject in group.members.values())


def _shared_axes(layout: TableLayout, group: Group) -> dict[str, Any]:
    axes = {axis: value for axis, value in group.axes.items() if axis not in layout.averaged and value is not None}
    name = next(iter(group.members.values())).baseline
    return axes | ({"baseline": name} if name else {})


def _by_column(build: _Build, cells: Sequence[Group]) -> list[Group]:
    """The rows as the columns have them: each with the runs that a column is over, once."""
    sides = (column_sides(build.layout, build.groups, group, item) for group in cells for item in build.measured)
    found = {id(side.first): side.first for side in sides if side.first.members}
    return list(found.values()) or list(cells)


def _method(group: Group) -> str:
    return str(group.axes.get("algorithm"))


def _entries(layout: TableLayout, baselines: Sequence[Group], cells: Sequence[Group]) -> list[Entry]:
    """Rows in table order: baselines, then cells under their headings, differences after what they compare."""
    entries: list[Entry] = list(baselines)
    deltas: dict[int, list[DeltaRow]] = {}
    for delta in delta_rows(layout, cells):
        deltas.setdefault(delta.after, []).append(delta)
    heading = ""
    for index, group in enumerate(cells):
        if group.heading != heading:
            heading = group.heading
            entries.append(heading)
        entries.append(group)
        entries.extend(deltas.get(index, ()))
    return entries


def _columns(layout: TableLayout, measured: Sequence[Measured]) -> list[Column]:
    columns = [Column(row.axis, row.label or key_title(row.axis), "label") for row in layout.rows]
    for attribute in layout.attributes:
        digits = 3 if attribute.name.endswith("_hours") else 0
        label = attribute.label or key_title(attribute.name)
        columns.append(Column(attribute.name, label, "attribute", digits=digits).under(attribute.heading))
    columns += [item.column for item in measured]
    for health in layout.health:
        label = health.label or key_title(health.field)
        columns.append(Column(health.key, label, "health", digits=health.digits).under(health.heading))
    return columns


def _lengths(results: Results, layout: TableLayout, measured: Sequence[Measured]) -> list[Health]:
    """Columns of mean lengths for win rates that have none: a judge that likes long responses shows there."""
    declared = {health.suite for health in layout.health if health.field == _LENGTH}
    last = {suite: item.column for item in measured if (suite := _win_rate(results, item)) is not None}
    return [
        Health(field=_LENGTH, suite=suite, label="Length", heading=column.headings[0] if column.headings else None)
        for suite, column in last.items()
        if suite not in declared
    ]


def _win_rate(results: Results, measured: Measured) -> str | None:
    """The suite whose win rate a column is, if it is one."""
    (first, *others) = measured.weights
    name = first.metric or str(results.suites[first.suite].get("primary", ""))
    return first.suite if not others and measured.minus is None and name.endswith(_WIN_RATES) else None


def _beside(columns: Sequence[Column], measured: Sequence[Measured], lengths: Sequence[Health]) -> list[int]:
    """The order of columns in which the length of a suite's responses stands behind the suite's own columns."""
    order = list(range(len(columns)))
    for length in lengths:
        own = {item.column.key for item in measured if {measure.suite for measure in item.weights} == {length.suite}}
        (index,) = (i for i, column in enumerate(columns) if column.key == length.key)
        order.remove(index)
        order.insert(max(place for place, i in enumerate(order) if columns[i].key in own) + 1, index)
    return order

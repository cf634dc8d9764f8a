"""How sure the order of a table's rows is, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.results.examples import ExampleReader, Examples, unlike
from ablate.results.layout import RankingLayout, TableLayout
from ablate.results.long import Results
from ablate.results.statistics.paired import PairedSuite
from ablate.results.statistics.ranks import RankStability, rank_stability
from ablate.results.tables.columns import Measured, column_value, expand_columns
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import Group, cell_groups
from ablate.results.tables.sides import column_sides
from ablate.results.tables.table import Cell, Column, Row, Table

Scores = list[tuple[float, list[Examples]]]
"""A row's runs by measure, with the measure's weight in the column."""


def build_ranking(results: Results, layout: RankingLayout, table: TableLayout) -> Table:
    """Return the rows of ``table`` by a column's number: rank, its interval, how often best and above the next."""
    (measured,) = (item for item in expand_columns(table, results) if item.column.key == layout.column)
    reader, notes, ranked, gaps = ExampleReader(results), Notes(), [], []
    groups = cell_groups(results, table)
    for group in (column_sides(table, groups, group, measured).first for group in groups):
        if not group.members:
            continue
        found = _scores(results, reader, measured, group)
        if isinstance(found, str):
            gaps.append(f"{_label(group)}: {found}")
        else:
            ranked.append((group, found))
    columns = _columns(table, measured)
    remarks = [f"Not ranked: {gap}." for gap in gaps]
    mixed = _mixed([row for _, row in ranked])
    if len(ranked) < 2 or mixed:
        return Table(layout.name, layout.title or "Ranking", columns, (), notes.all(), (
            *remarks, f"Not ranked: {mixed}." if mixed else "An order needs two rows with numbers.",
        ))  # fmt: skip
    stability = rank_stability(
        [[(weight, _stacked(read)) for weight, read in row] for _, row in ranked],
        higher_is_better=measured.column.higher_is_better is not False,
        same_seeds=_share_models(table, [group for group, _ in ranked]),
        resamples=layout.resamples,
        seed=layout.seed,
    )
    rows = _rows([group for group, _ in ranked], stability)
    remarks.insert(0, (
        f"Over {layout.resamples} resamples of seeds and examples (seed {layout.seed}): 95 % interval of the rank, and"
        " how often a row is first and above the next one. Kendall's τ of a resample's order with this one: mean"
        f" {stability.tau:.2f}, 95 % from {stability.tau_low:.2f} to {stability.tau_high:.2f}."
    ))  # fmt: skip
    if measured.column.higher_is_better is None:
        remarks.insert(
            1, f"{measured.column.label} has no direction that is known: the highest number is ranked first."
        )
    return Table(layout.name, layout.title or "Ranking", columns, rows, notes.all(), tuple(remarks))


def _columns(table: TableLayout, measured: Measured) -> tuple[Column, ...]:
    share = {"kind": "number", "scale": 100.0, "digits": 0, "higher_is_better": None}
    return (
        Column("rank", "Rank", "attribute", digits=0),
        *(Column(row.axis, row.label or row.axis, "label") for row in table.rows),
        measured.column,
        Column("rank_low", "from", "attribute", digits=0),
        Column("rank_high", "to", "attribute", digits=0),
        Column("first", "First (%)", **share),  # type: ignore[arg-type]
        Column("above_next", "Above the next (%)", **share),  # type: ignore[arg-type]
    )


def _rows(groups: Sequence[Group], found: RankStability) -> tuple[Row, ...]:
    order = sorted(range(len(groups)), key=lambda place: (found.rank_R[place], place))
    rows = []
    for place, below in zip(order, [*order[1:], None], strict=True):
        group = groups[place]
        seeds = len(group.members)
        rows.append(Row("cell", (
            Cell(value=float(found.rank_R[place])),
            *(Cell(text=label) for label in group.labels),
            Cell(value=float(found.value_R[place]), n=seeds),
            Cell(value=float(found.low_R[place])),
            Cell(value=float(found.high_R[place])),
            Cell(value=float(found.best_R[place]), n=seeds),
            Cell(text="") if below is None else Cell(value=float(found.above_RR[place, below]), n=seeds),
        )))  # fmt: skip
    return tuple(rows)


def _share_models(table: TableLayout, groups: Sequence[Group]) -> bool:
    """Whether all rows have runs from the same several base or SFT models: a seed is then the same model for all."""
    keys = {tuple(sorted(map(repr, group.members))) for group in groups}
    starts = [index for index, axis in enumerate(table.averaged) if axis != "seed"]
    return len(keys) == 1 and any(len({key[index] for key in groups[0].members}) > 1 for index in starts)


def _label(group: Group) -> str:
    return " ".join(label for label in group.labels if label)


def _scores(results: Results, reader: ExampleReader, measured: Measured, group: Group) -> Scores | str:
    """The examples of a row's runs by measure; or why there is no number that they all are behind."""
    subjects = [group.members[key] for key in sorted(group.members, key=repr)]
    for subject in subjects:
        value, gaps = column_value(results, subject, measured)
        if value is None:
            return gaps[0]
    scores: Scores = []
    for measure, weight in measured.weights.items():
        read = reader.read(subjects, measure)
        if isinstance(read, str):
            return f"{measure.suite}: {read}"
        weight_E = read[0].weight_E
        if any(np.isnan(examples.value_E[weight_E > 0]).any() for examples in read):
            return f"{measure.suite}: undefined for some example"
        scores.append((weight, read))
    return scores


def _stacked(read: Sequence[Examples]) -> PairedSuite:
    value_SE = np.stack([examples.value_E for examples in read])
    _, cluster_E = np.unique(read[0].cluster_E.astype(str), return_inverse=True)
    return PairedSuite(np.nan_to_num(value_SE), read[0].weight_E, cluster_E.astype(np.int64))


def _mixed(rows: Sequence[Scores]) -> str:
    """Why rows can't be drawn together, or nothing: all hold the same examples, under one protocol."""
    reasons = (unlike([examples for _, read in measure for examples in read]) for measure in zip(*rows, strict=True))
    return next(filter(None, reasons), "")

"""Whether what reward models score goes with what policies trained on them reach: correlations over cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.results.layout import CorrelationLayout
from ablate.results.long import Results, Subject
from ablate.results.statistics.permutation import Floats
from ablate.results.tables.columns import Measured, column_value, measured_columns
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table

FEWEST = 3
"""Cells below which there is no correlation."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Correlation:
    """A coefficient with its bootstrap interval; null where it is undefined, and then ``reason`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Points:
    """One point for every cell: its reward model's number, its own, and which reward model that is.

    ``lacking`` cells have a reward model, and one of the two numbers is missing.
    """

    x_N: Floats
    y_N: Floats
    unit_N: npt.NDArray[np.int64]
    lacking: int


def build_correlations(results: Results, layout: CorrelationLayout) -> Table:
    """Return a table with a row for each pair of columns: cells, reward models, Pearson and Spearman with intervals."""
    rows, notes = [], Notes()
    for one in measured_columns(layout.reward_model, "reward_model", results):
        for other in measured_columns(layout.policy, "policy", results):
            rows.append(_row(results, layout, one, other, notes))
    methods = ", ".join(layout.algorithms)
    remark = (
        f"Over cells trained by {methods}, each with the number of the reward model that it was trained on; intervals: "
        f"{CONFIDENCE:.0%}, percentiles of {layout.resamples} resamples of reward models (seed {layout.seed}). "
        f"Fewer than {FEWEST} cells have no correlation."
    )
    return Table(layout.name, layout.title, _COLUMNS, tuple(rows), notes.all(), (remark,))


def read_points(results: Results, layout: CorrelationLayout, one: Measured, other: Measured) -> Points:
    """Pair every cell of the layout's methods with its reward model."""
    models = [subject for subject in results.subjects if subject.subject == "reward_model"]
    cells = [
        subject
        for subject in results.subjects
        if subject.subject == "policy" and subject.axes.get("algorithm") in layout.algorithms
    ]
    pairs = [(cell, model) for cell in cells if (model := model_of(cell, models)) is not None]
    units = {stage: unit for unit, stage in enumerate(dict.fromkeys(model.stage for _, model in pairs))}
    found = []
    for cell, model in pairs:
        x, y = column_value(results, model, one)[0], column_value(results, cell, other)[0]
        if x is not None and y is not None:
            found.append((x, y, units[model.stage]))
    x_N, y_N = (np.array([row[side] for row in found], dtype=np.float64) for side in (0, 1))
    return Points(x_N, y_N, np.array([row[2] for row in found], dtype=np.int64), len(pairs) - len(found))


def model_of(cell: Subject, models: Sequence[Subject]) -> Subject | None:
    """Return the reward model that a cell was trained on; of its rows for several policies that of the cell's own."""
    same = [model for model in models if model.stage == cell.inputs.get("reward_model")]
    own = [model for model in same if model.inputs.get("sft") == cell.inputs.get("sft")]
    return next(iter(own or same), None)


def pearson(x_N: Floats, y_N: Floats) -> float | None:
    """Return the correlation of two series; null below three points, and where one of them is constant."""
    if len(x_N) < FEWEST:
        return None
    x, y = x_N - x_N.mean(), y_N - y_N.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    scale = len(x_N) * max(float(np.abs(x_N).max()) * float(np.abs(y_N).max()), np.finfo(float).tiny)
    return None if spread <= 1e-12 * scale else float(np.clip(x @ y / spread, -1.0, 1.0))


def spearman(x_N: Floats, y_N: Floats) -> float | None:
    """Return the correlation of ranks, equal values sharing the mean of theirs."""
    return pearson(*(pd.Series(values).rank().to_numpy() for values in (x_N, y_N)))


def correlate(points: Points, *, ranks: bool, resamples: int, seed: int) -> Correlation:
    """Return Pearson's or, with ``ranks``, Spearman's coefficient and its interval.

    Cells with one reward model are no independent points: whole reward models are drawn with replacement. Resamples in
    which the coefficient is undefined are left out; without half of them there is no interval.
    """
    statistic = spearman if ranks else pearson
    value = statistic(points.x_N, points.y_N)
    if value is None:
        few = len(points.x_N) < FEWEST
        return Correlation(None, reason=f"{len(points.x_N)} cells, 3 are needed" if few else "all values are equal")
    units = np.unique(points.unit_N)
    members = [np.flatnonzero(points.unit_N == unit) for unit in units]
    stream = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([members[unit] for unit in stream.integers(len(units), size=len(units))])
        drawn.append(statistic(points.x_N[rows], points.y_N[rows]))
    defined = [found for found in drawn if found is not None]
    if not defined or len(defined) < resamples / 2:
        return Correlation(value, reason="too few reward models for an interval")
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Correlation(value, float(low), float(high))


_COLUMNS = (
    Column("reward_model", "Reward model", "label"),
    Column("policy", "Policy", "label"),
    Column("cells", "# cells", "attribute", digits=0),
    Column("reward_models", "# reward models", "attribute", digits=0),
    *(
        Column(f"{key}{part}", label, "number", unit="correlation", digits=2, higher_is_better=None)
        for key, name in (("pearson", "Pearson"), ("spearman", "Spearman"))
        for part, label in (("", name), ("_low", "from"), ("_high", "to"))
    ),
)


def _row(results: Results, layout: CorrelationLayout, one: Measured, other: Measured, notes: Notes) -> Row:
    points = read_points(results, layout, one, other)
    cells = [Cell(text=one.column.label), Cell(text=other.column.label)]
    lacking = (notes.key(f"{points.lacking} more cells lack one of the two numbers"),) if points.lacking else ()
    cells.append(Cell(value=float(len(points.x_N)), n=1, notes=lacking))
    cells.append(Cell(value=float(len(np.unique(points.unit_N))), n=1))
    for ranks in (False, True):
        found = correlate(points, ranks=ranks, resamples=layout.resamples, seed=layout.seed)
        for number in (found.value, found.low, found.high):
            if number is None:
                cells.append(Cell(missing=found.reason, notes=(notes.key(found.reason),)))
            else:
                cells.append(Cell(value=number, n=len(points.x_N)))
    return Row("cell", tuple(cells))

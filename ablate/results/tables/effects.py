"""Which axis explains how much of a column's variance, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.catalogs.origins import Origins
from ablate.errors import Location, UsageError
from ablate.results.layout import EffectsLayout
from ablate.results.layout.claims import column_names, column_of
from ablate.results.layout.effects import check_effects
from ablate.results.layout.grammar import Quantity
from ablate.results.layout.names import SEED_AXES, axis_names, refuse_unknown
from ablate.results.long import Results, Subject
from ablate.results.statistics.anova import Anova, Effect, analyse
from ablate.results.statistics.corrections import holm
from ablate.results.tables.columns import Measured, column_value, measured_columns
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table, p_cell

_COLUMNS = (
    Column("term", "Axis", "label"),
    Column("df", "df", "attribute", digits=0),
    Column("share", "Share of variance (%)", "number", scale=100.0, higher_is_better=None),
    Column("omega", "ω² (%)", "number", scale=100.0, higher_is_better=None),
    Column("f", "F", "number", digits=2, higher_is_better=None),
    Column("p", "p", "number", digits=4, higher_is_better=None),
)


def build_effects(results: Results, layout: EffectsLayout) -> Table:
    """Return a group of rows for every column: a row for every axis and pair of axes, then what seeds leave."""
    factors = layout.factors(results.plan)
    notes, analysed = Notes(), []
    for measured in measured_columns(layout.columns, layout.subject, results):
        analysed.append((measured, _analyse(results, layout.subject, measured, factors)))
    p_values = [e.p for _, found in analysed if isinstance(found, Anova) for e in found.effects if e.p is not None]
    corrected = iter(holm(p_values))
    rows: list[Row] = []
    for measured, found in analysed:
        rows.append(Row("heading", (Cell(text=measured.column.label),)))
        if isinstance(found, str):
            gap = Cell(missing=found, notes=(notes.key(found),))
            rows.append(Row("cell", (Cell(text="not analysed"), *(gap,) * (len(_COLUMNS) - 1))))
            continue
        keys = _notes(found, notes)
        for effect in found.effects:
            rows.append(_row(effect, None if effect.p is None else next(corrected), keys if not effect.factors else ()))
    remarks = (
        "Analysis of variance over runs, type II sums of squares; an axis that some cells do not read is tested within"
        " those that do. Share: of the total sum of squares (η²); ω²: less what chance alone explains.",
        f"p: F tests against the residual, Holm-corrected over {len(p_values)} tests; seeds are blocks. They are about"
        " these examples: what is specific to them is in the numbers of all runs alike.",
    )
    return Table(layout.name, layout.title or "Effects of the axes", _COLUMNS, tuple(rows), notes.all(), remarks)


def effects_of(results: Results, columns: Sequence[str], axes: Sequence[str]) -> Table:
    """Return the effects on columns by their keys; raises :class:`SpecError` for one, or an axis, that is not there."""
    found = [column_of(Quantity(name), results.plan) for name in columns]
    for name, (column, _) in zip(columns, found, strict=True):
        if column is None:
            refuse_unknown("column", name, column_names(results.plan), Location())
    kinds = sorted({kind for _, kind in found})
    if len(kinds) > 1:
        raise UsageError("columns of policies and of reward models have different axes", hint="ask for them apart")
    known = axis_names([entry for entry in results.plan["subjects"] if entry["subject"] == kinds[0]])
    for axis in axes:
        refuse_unknown("axis", axis, known, Location())
    layout = EffectsLayout.model_validate(
        {"subject": kinds[0], "columns": [column for column, _ in found], "axes": tuple(axes)}
    )
    check_effects(layout, results.plan, Origins())
    if not measured_columns(layout.columns, layout.subject, results):
        known_columns = ", ".join(name for name in sorted(column_names(results.plan)) if name not in columns)
        raise UsageError(f"no suite of {results.experiment} is in an average", hint=f"name a --column: {known_columns}")
    return build_effects(results, layout)


def _analyse(results: Results, subject: str, measured: Measured, factors: Sequence[str]) -> Anova | str:
    cells = {item.stage: item for item in results.subjects if item.subject == subject and item.role == "cell"}
    values = {stage: column_value(results, item, measured)[0] for stage, item in cells.items()}
    runs = [item for stage, item in cells.items() if values[stage] is not None]
    if len(runs) < 2:
        return f"{len(runs)} of {len(cells)} runs have this number, 2 are needed"
    value_N = np.array([values[item.stage] for item in runs], dtype=np.float64)
    levels = {axis: _levels(runs, axis) for axis in (*SEED_AXES, *factors)}
    varying = {axis: found for axis, found in levels.items() if len(set(found)) > 1}
    blocks = {axis: found for axis, found in varying.items() if axis not in factors}
    chosen = {axis: found for axis, found in varying.items() if axis in factors}
    return analyse(value_N, chosen, blocks) if chosen else "no axis varies"


def _levels(runs: Sequence[Subject], axis: str) -> list[str | None]:
    return [None if item.axes.get(axis) is None else str(item.axes[axis]) for item in runs]


def _notes(found: Anova, notes: Notes) -> tuple[str, ...]:
    texts = [f"{found.runs} runs"]
    if found.aliased:
        listed = ", ".join(_term(term) for term in found.aliased)
        texts.append(f"can't be told from the other axes in this grid: {listed}")
    if found.pooled:
        texts.append("one run a cell: the interactions are the residual, and the axes are tested against them")
    return tuple(notes.key(text) for text in texts)


def _term(factors: Sequence[str]) -> str:
    return " × ".join(factors) or "residual (between runs)"


def _row(effect: Effect, p: float | None, keys: tuple[str, ...]) -> Row:
    return Row("cell", (
        Cell(text=_term(effect.factors), notes=keys),
        Cell(value=float(effect.df)),
        Cell(value=effect.share, n=1),
        Cell(value=effect.omega, n=1) if effect.factors else Cell(text=""),
        Cell(text="") if effect.f is None else Cell(value=effect.f, n=1),
        Cell(text="") if p is None else p_cell(p, 1),
    ))  # fmt: skip

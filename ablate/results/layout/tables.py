"""Tables as declared: which axes make rows, what is compared with what, and how it is checked against a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError
from ablate.results.layout.columns import Attribute, Column, Health, NumberFormat, check_columns
from ablate.results.layout.names import (
    SEED_AXES,
    Scalar,
    axis_names,
    baseline_name,
    published_names,
    refuse_unknown,
)
from ablate.results.layout.published import PublishedBeside
from ablate.results.statistics.corrections import Correction


class RowAxis(Closed):
    """An axis whose values make rows."""

    axis: str = Field(description="key of a cell, e.g. dataset or reward_model.init")
    label: str | None = Field(default=None, description="heading of the column; null: the axis' name")
    values: dict[str, str] = Field(default_factory=dict, description="how to write a value; others as they are")
    order: tuple[Scalar, ...] = Field(default=(), description="values in the order wanted; others follow")
    only: tuple[Scalar, ...] = Field(default=(), description="leave out rows with any other value")
    optional: bool = Field(default=False, description="whether the experiment need not have this axis")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"axis": value} if isinstance(value, str) else value


class Delta(Closed):
    """Rows with the difference between two values of an axis: first minus second, where ``match_on`` agrees."""

    axis: str
    values: tuple[Scalar, Scalar]
    match_on: tuple[str, ...] = Field(description="axes on which the two rows must agree")
    label: str | None = None


class Compare(Closed):
    """What the rows are tested against, and how the table's tests are corrected."""

    to: str | None = Field(default="sft", description="name of the baseline; null: rows are not tested")
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0, description="family-wise over all tests of the table")
    correction: Correction = Field(
        default="holm", description="of the family-wise error (holm) or the false discovery rate (benjamini-hochberg)"
    )
    power: float = Field(default=0.8, gt=0.0, lt=1.0, description="of the minimum detectable difference")
    colour: Literal["test", "sign", "none"] = Field(
        default="test", description="what blue and orange mean: a corrected test, or the plain sign of the difference"
    )


class Pattern(Closed):
    """A heading over the rows whose numbers lie within bounds, as they are printed (percent stays percent)."""

    heading: str
    at_least: dict[str, float] = Field(default_factory=dict, description="key of a column to its least number")
    below: dict[str, float] = Field(default_factory=dict, description="key of a column to what its number is below")

    @model_validator(mode="after")
    def _bounded(self) -> Pattern:
        if not self.at_least and not self.below:
            raise PydanticCustomError("pattern", "a pattern has bounds: at_least, below or both")
        return self


class Groups(Closed):
    """Headings over groups of rows: by values of an axis (Web, Human, Synthetic), or by patterns of their numbers."""

    axis: str | None = None
    headings: dict[str, tuple[Scalar, ...]] = Field(
        default_factory=dict, description="with axis: heading to the values under it, in table order"
    )
    patterns: tuple[Pattern, ...] = Field(default=(), description="the first that fits a row is its heading")

    @model_validator(mode="after")
    def _one_kind(self) -> Groups:
        if bool(self.patterns) == bool(self.axis) or bool(self.headings) != bool(self.axis):
            raise PydanticCustomError("groups", "groups are axis and headings, or patterns")
        return self


class Sort(Closed):
    """Rows by their numbers, within their headings; what has no number comes last."""

    column: str = Field(description="key of a column, e.g. average, or suite/metric")
    descending: bool = True

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


RULES = {"random": "Random", "longest": "Longest response", "shortest": "Shortest response"}
"""Rules that read nothing, and what their rows are called."""


class TableLayout(Closed):
    """One table."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""
    subject: Literal["policy", "reward_model"] = "policy"
    rows: tuple[RowAxis, ...] = Field(min_length=1)
    over: tuple[str, ...] = Field(
        default=SEED_AXES, description="axes that are averaged over, as mean ± sd, unless they make rows"
    )
    columns: tuple[Column, ...] = Field(min_length=1)
    baselines: tuple[str, ...] = Field(default=(), description="names of baselines, whose rows are put first")
    compare: Compare = Compare()
    deltas: tuple[Delta, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    health: tuple[Health, ...] = ()
    groups: Groups | None = None
    sort: Sort | None = Field(default=None, description="order of the rows; null: that of the axes' values")
    best: int = Field(default=0, ge=0, le=2, description="1: the best of each column is bold; 2: the second underlined")
    labels: dict[str, str] = Field(default_factory=dict, description="how to write a baseline's name")
    rules: tuple[Literal["random", "longest", "shortest"], ...] | None = Field(
        default=None,
        description="first rows: what these rules reach on the same pairs; null: of reward models those of the three "
        "that no column shows",
    )
    format: NumberFormat = NumberFormat()
    transpose: bool = Field(default=False, description="print columns as rows and rows as columns")
    published: PublishedBeside | None = Field(default=None, description="published numbers under the table's own")
    detectable: bool = Field(default=True, description="last row: the minimum detectable difference of each column")

    @property
    def averaged(self) -> tuple[str, ...]:
        """The axes that rows are averaged over: those of ``over`` that make no rows."""
        return tuple(axis for axis in self.over if axis not in {row.axis for row in self.rows})

    @property
    def run_axes(self) -> tuple[str, ...]:
        """The axes that tell the runs of a row apart: those averaged over, then those whose values make columns."""
        made = {axis for column in self.columns for axis in column.spread_axes}
        made -= {*self.averaged, *(row.axis for row in self.rows)}
        return (*self.averaged, *sorted(made))

    @property
    def shown_rules(self) -> tuple[str, ...]:
        """The rules that have rows, where suites know what they reach."""
        if self.rules is not None:
            return self.rules
        shown = {column.metric for column in self.columns}
        return tuple(rule for rule in RULES if rule not in shown) if self.subject == "reward_model" else ()


def check_table(table: TableLayout, plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for what a table names and the experiment does not have."""

    def check(kind: str, name: str, known: Iterable[str], *path: str | int) -> None:
        refuse_unknown(kind, name, known, origins.locate(*path))

    entries = [entry for entry in plan["subjects"] if entry["subject"] == table.subject]
    axes = axis_names(entries)
    baselines = {baseline_name(entry) for entry in entries} - {""}
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == table.subject}
    for i, row in enumerate(table.rows):
        if row.optional and row.axis not in axes:
            continue
        check("axis", row.axis, axes, "rows", i, *(("axis",) if origins.has("rows", i, "axis") else ()))
    check_columns(table.columns, table.subject, plan, origins.inside("columns"))
    if table.sort is not None:
        check("column", table.sort.column, score_keys(table, plan), "sort")
    for i, name in enumerate(table.baselines):
        check("baseline", name, baselines, "baselines", i)
    for i, delta in enumerate(table.deltas):
        check("axis", delta.axis, axes, "deltas", i, "axis")
        for j, name in enumerate(delta.match_on):
            check("axis", name, axes, "deltas", i, "match_on", j)
        values = {str(entry["axes"].get(delta.axis)) for entry in entries}
        for j, value in enumerate(delta.values):
            check(f"value of {delta.axis}", str(value), values, "deltas", i, "values", j)
    if table.published is not None:
        check("published table", table.published.table, published_names(Path.cwd()), "published", "table")
        for name, about in table.published.rows.items():
            check("axis", about.axis, axes, "published", "rows", name, "axis")
        for name in table.published.columns:
            check("column", name, column_keys(table, plan), "published", "columns", name)
    for i, pattern in enumerate(table.groups.patterns if table.groups else ()):
        for field in ("at_least", "below"):
            for name in getattr(pattern, field):
                check("column", name, score_keys(table, plan), "groups", "patterns", i, field, name)
    if table.groups is not None and table.groups.axis is not None:
        check("axis", table.groups.axis, [row.axis for row in table.rows], "groups", "axis")
    for i, health in enumerate(table.health):
        if health.suite is not None:
            check("suite", health.suite, suites, "health", i, "suite")
    # ``sft`` is what an unwritten ``compare`` names; an experiment without that baseline is simply not tested.
    if table.compare.to is not None and "to" in table.compare.model_fields_set:
        check("baseline", table.compare.to, baselines, "compare", "to")
    cells = [entry["axes"] for entry in entries if entry["role"] == "cell"]
    rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in (axes for axes in cells if is_wanted(table, axes)):
        rows.setdefault(row_key(table, cell), []).append(cell)
    chosen = [column.where for column in _single_columns(table, plan) if column.where] or [{}]
    if any(not column.spread_axes for column in table.columns):
        chosen.append({})
    for members in rows.values():
        for where in chosen:
            refuse_hidden_axis(table, [axes for axes in members if fits(axes, where)], origins.locate("rows"))


def column_keys(table: TableLayout, plan: Mapping[str, Any]) -> list[str]:
    """Return the keys of the columns with numbers that a table has, in order."""
    return [*score_keys(table, plan), *(health.key for health in table.health)]


def score_keys(table: TableLayout, plan: Mapping[str, Any], *, differences: bool = True) -> list[str]:
    """Return the keys of the columns with scores, by which rows can be ordered; those of differences if asked."""
    return [column.key for column in _single_columns(table, plan) if differences or column.minus is None]


def _single_columns(table: TableLayout, plan: Mapping[str, Any]) -> list[Column]:
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == table.subject}
    cells = [entry["axes"] for entry in plan["subjects"] if entry["subject"] == table.subject]
    return [single for column in table.columns for single in column.written_out(suites, cells)]


def row_key(table: TableLayout, axes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what two cells with these axes must have in common to make one row."""
    return tuple(repr(axes.get(row.axis)) for row in table.rows)


def is_wanted(table: TableLayout, axes: Mapping[str, Any], *, is_baseline: bool = False) -> bool:
    """Return whether ``only`` lets a subject with these axes in; a baseline need not have the axis."""
    values = [(axes.get(row.axis), row.only) for row in table.rows if row.only]
    return all(value in only or (value is None and is_baseline) for value, only in values)


def fits(axes: Mapping[str, Any], where: Mapping[str, Any], *, is_baseline: bool = False) -> bool:
    """Return whether a subject with these axes has the values of ``where``; a baseline need not have the axis."""
    return all(axes.get(axis) == value or (is_baseline and axes.get(axis) is None) for axis, value in where.items())


def refuse_hidden_axis(table: TableLayout, row: Sequence[Mapping[str, Any]], location: Location | None = None) -> None:
    """Raise :class:`SpecError` for an axis that varies within a row, though it is neither a row nor averaged over."""
    named = {axis.axis for axis in table.rows} | set(table.averaged)
    for axis in dict.fromkeys(key for axes in row for key in axes):
        values = {repr(axes.get(axis)) for axes in row}
        if axis not in named and len(values) > 1:
            raise SpecError(
                f"table {table.name!r}: axis {axis!r} varies within a row ({', '.join(sorted(values))})",
                location=location,
                hint=f"add {axis!r} to the table's rows, to its `over` (averaged), or fix it with `only` or `where`",
            )

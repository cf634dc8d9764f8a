"""Tables as declared: which axes make rows, what is compared with what, and how it is checked against a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from ablate.catalogs.closed import Closed
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError
from ablate.results.layout.columns import Attribute, Column, Health, NumberFormat, check_columns
from ablate.results.layout.names import SEED_AXES, axis_names, baseline_name, refuse_unknown
from ablate.results.statistics.corrections import Correction

Scalar = str | int | float | bool | None


class RowAxis(Closed):
    """An axis whose values make rows."""

    axis: str = Field(description="key of a cell, e.g. dataset or reward_model.init")
    label: str | None = Field(default=None, description="heading of the column; null: the axis' name")
    values: dict[str, str] = Field(default_factory=dict, description="how to write a value; others as they are")
    order: tuple[Scalar, ...] = Field(default=(), description="values in the order wanted; others follow")
    only: tuple[Scalar, ...] = Field(default=(), description="leave out rows with any other value")

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


class Groups(Closed):
    """Headings over groups of rows, e.g. Web, Human, Synthetic over datasets."""

    axis: str
    headings: dict[str, tuple[Scalar, ...]] = Field(description="heading to the values under it, in table order")


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
    labels: dict[str, str] = Field(default_factory=dict, description="how to write a baseline's name")
    rules: tuple[Literal["random", "longest", "shortest"], ...] | None = Field(
        default=None,
        description="first rows: what these rules reach on the same pairs; null: of reward models those of the three "
        "that no column shows",
    )
    format: NumberFormat = NumberFormat()
    detectable: bool = Field(default=True, description="last row: the minimum detectable difference of each column")

    @property
    def averaged(self) -> tuple[str, ...]:
        """The axes that rows are averaged over: those of ``over`` that make no rows."""
        return tuple(axis for axis in self.over if axis not in {row.axis for row in self.rows})

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
        check("axis", row.axis, axes, "rows", i, *(("axis",) if origins.has("rows", i, "axis") else ()))
    check_columns(table.columns, table.subject, plan, origins.inside("columns"))
    for i, name in enumerate(table.baselines):
        check("baseline", name, baselines, "baselines", i)
    for i, delta in enumerate(table.deltas):
        check("axis", delta.axis, axes, "deltas", i, "axis")
        for j, name in enumerate(delta.match_on):
            check("axis", name, axes, "deltas", i, "match_on", j)
        values = {str(entry["axes"].get(delta.axis)) for entry in entries}
        for j, value in enumerate(delta.values):
            check(f"value of {delta.axis}", str(value), values, "deltas", i, "values", j)
    if table.groups is not None:
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
    for members in rows.values():
        refuse_hidden_axis(table, members, origins.locate("rows"))


def column_keys(table: TableLayout, plan: Mapping[str, Any]) -> list[str]:
    """Return the keys of the columns with numbers that a table has, in order."""
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == table.subject}
    numbers = [single.key for column in table.columns for single in column.written_out(suites)]
    return [*numbers, *(health.key for health in table.health)]


def row_key(table: TableLayout, axes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what two cells with these axes must have in common to make one row."""
    return tuple(repr(axes.get(row.axis)) for row in table.rows)


def is_wanted(table: TableLayout, axes: Mapping[str, Any], *, is_baseline: bool = False) -> bool:
    """Return whether ``only`` lets a subject with these axes in; a baseline need not have the axis."""
    values = [(axes.get(row.axis), row.only) for row in table.rows if row.only]
    return all(value in only or (value is None and is_baseline) for value, only in values)


def refuse_hidden_axis(table: TableLayout, row: Sequence[Mapping[str, Any]], location: Location | None = None) -> None:
    """Raise :class:`SpecError` for an axis that varies within a row, though it is neither a row nor averaged over."""
    named = {axis.axis for axis in table.rows} | set(table.averaged)
    for axis in dict.fromkeys(key for axes in row for key in axes):
        values = {repr(axes.get(axis)) for axes in row}
        if axis not in named and len(values) > 1:
            raise SpecError(
                f"table {table.name!r}: axis {axis!r} varies within a row ({', '.join(sorted(values))})",
                location=location,
                hint=f"add {axis!r} to the table's rows, to its `over` (averaged), or fix it with `only`",
            )

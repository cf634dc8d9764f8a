"""Declared tables: what a researcher writes in ``reports/*.yaml``, typed and closed, and a default without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, unknown_name, validated
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError, suggestion

NOT_AVERAGED = frozenset({"gold", "reward"})
"""Categories whose suites are no proportions of right answers: never part of an unnamed average."""

SEED_AXES = ("seed", "pretrain.seed", "sft.seed")
"""Axes that are averaged over where a table doesn't say otherwise."""

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


class Column(Closed):
    """One column of numbers, or a family of them: a category, a suite, one metric of a suite, an average.

    Written ``average``, ``categories`` or ``suites`` for short; ``categories`` and ``suites`` stand for all the
    experiment has.
    """

    category: str | None = None
    suite: str | None = None
    task: str | None = Field(default=None, description="with suite: one task of it")
    metric: str | None = Field(default=None, description="with suite: this metric instead of the suite's score")
    average: tuple[str, ...] | None = Field(
        default=None, description="mean of these categories; empty: of all that are proportions"
    )
    all: Literal["categories", "suites"] | None = None
    label: str | None = None
    digits: int | None = Field(default=None, ge=0, le=6)

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in ("average", "categories", "suites"):
            raise unknown_name("column", value, ("average", "categories", "suites"))
        return {"average": ()} if value == "average" else {"all": value}

    @model_validator(mode="after")
    def _one_kind(self) -> Column:
        given = [name for name in ("category", "suite", "average", "all") if getattr(self, name) is not None]
        if len(given) != 1:
            message = "a column is one of category, suite, average, categories or suites (found: {found})"
            raise PydanticCustomError("column", message, {"found": ", ".join(given) or "none"})
        if (self.task is not None or self.metric is not None) and self.suite is None:
            raise PydanticCustomError("column", "task and metric go with suite")
        if self.task is not None and self.metric is None:
            raise PydanticCustomError("column", "task goes with metric: name the metric of that task")
        return self

    @property
    def key(self) -> str:
        """The name of a single column in figures and files."""
        if self.average is not None:
            return f"average({','.join(self.average)})" if self.average else "average"
        return self.category or "/".join(part for part in (self.suite, self.task, self.metric) if part)

    def written_out(self, suites: Mapping[str, Mapping[str, Any]]) -> list[Column]:
        """Return the single columns that this one stands for, where there are ``suites``."""
        if self.all is None:
            return [self]
        names = suites if self.all == "suites" else averaged_categories(suites)
        field = "suite" if self.all == "suites" else "category"
        return [self.model_copy(update={"all": None, field: name}) for name in names]


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
    correction: Literal["holm", "none"] = "holm"
    power: float = Field(default=0.8, gt=0.0, lt=1.0, description="of the minimum detectable difference")


class Attribute(Closed):
    """A column of facts about a row: its number of training pairs, or a field of its dataset's catalog entry."""

    name: Literal["samples", "title", "label_kind", "licence"]
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Health(Closed):
    """A column of a health field, averaged over the table's suites that report it (or read from one suite)."""

    field: str = Field(description="e.g. mean_length, truncated, extraction_failed")
    suite: str | None = None
    label: str | None = None
    digits: int = Field(default=1, ge=0, le=6)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"field": value} if isinstance(value, str) else value

    @property
    def key(self) -> str:
        """The name of the column in figures and files."""
        return f"{self.field}({self.suite})" if self.suite else self.field


class Groups(Closed):
    """Headings over groups of rows, e.g. Web, Human, Synthetic over datasets."""

    axis: str
    headings: dict[str, tuple[Scalar, ...]] = Field(description="heading to the values under it, in table order")


class NumberFormat(Closed):
    """How numbers are written."""

    percent: bool = Field(default=True, description="proportions times 100, without a sign")
    digits: int = Field(default=1, ge=0, le=6, description="decimals of proportions")
    other_digits: int = Field(default=2, ge=0, le=6, description="decimals of rewards and counts")


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


class FigureLayout(Closed):
    """One figure, drawn from a table's numbers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    table: str = Field(description="name of a table of this report")
    kind: Literal["bar"] = "bar"
    columns: tuple[str, ...] = Field(default=(), description="keys of the table's columns; empty: the average")
    title: str = ""


class CurveLayout(Closed):
    """A figure of learning curves: the rows of a table that are trained on their own samples, mean and band over runs.

    Rows without a curve (methods that learn from fixed data, baselines) are horizontal lines at the suite's score.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    table: str = Field(description="name of a table of this report, whose rows are drawn")
    y: str = Field(default="score", description="a value of the training curve: score, gold, kl, entropy, …")
    x: Literal["steps", "samples", "labels"] = Field(
        default="steps",
        description="steps, samples of the policy, or labels: those that its reward model learnt from, then those that "
        "were asked for while it trained",
    )
    suite: str | None = Field(
        default=None, description="suite whose score is a curve's last point and the height of the horizontal lines"
    )
    label: str | None = Field(default=None, description="name of the y axis; null: y")
    title: str = ""


class CorrelationLayout(Closed):
    """A table of correlations: numbers of reward models with those of the policies that were trained on them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""
    reward_model: tuple[Column, ...] = Field(min_length=1, description="columns of reward models, as in a table")
    policy: tuple[Column, ...] = Field(min_length=1, description="columns of policies, as in a table")
    algorithms: tuple[str, ...] = Field(default=("ppo",), min_length=1, description="methods whose cells are points")
    resamples: int = Field(default=2000, ge=100, description="of the bootstrap interval")
    seed: int = Field(default=0, ge=0)


class Layout(Closed):
    """A report: its tables and figures."""

    title: str = ""
    tables: tuple[TableLayout, ...] = ()
    figures: tuple[FigureLayout, ...] = ()
    curves: tuple[CurveLayout, ...] = ()
    correlations: tuple[CorrelationLayout, ...] = ()
    data: bool = Field(default=False, description="whether the table of the sets that are read follows")

    @model_validator(mode="after")
    def _has_tables(self) -> Layout:
        if not self.tables and not self.correlations and not self.data:
            raise PydanticCustomError("tables", "a report needs tables, correlations or data: true")
        return self


def load_layout(path: Path, plan: Mapping[str, Any] | None = None) -> Layout:
    """Read a report file and check every name in it against ``plan`` (when given).

    Raises :class:`SpecError` with file, line, key and the nearest right spelling.
    """
    if not path.is_file():
        raise SpecError("there is no such report file", location=Location(file=str(path)))
    values, origins = read_yaml(path)
    if not isinstance(values, dict):
        raise SpecError("a report is a mapping with title, tables and figures", location=origins.locate())
    layout = validated(Layout, values, origins.locate)
    _check_names(layout, origins)
    if plan is not None:
        check_layout(layout, plan, origins)
    return layout


def _check_names(layout: Layout, origins: Origins) -> None:
    tables = [table.name for table in layout.tables]
    drawn: list[tuple[str, int, FigureLayout | CurveLayout]] = []
    drawn += [("figures", index, figure) for index, figure in enumerate(layout.figures)]
    drawn += [("curves", index, figure) for index, figure in enumerate(layout.curves)]
    written = [(("tables", index), name) for index, name in enumerate(tables)]
    written += [(("correlations", index), one.name) for index, one in enumerate(layout.correlations)]
    for places in (written, [((kind, index), figure.name) for kind, index, figure in drawn]):
        for number, (place, name) in enumerate(places):
            if name in [other for _, other in places[:number]]:
                raise SpecError(f"{name!r} is used twice", location=origins.locate(*place, "name"))
    for kind, index, figure in drawn:
        _known("table", figure.table, tables, origins.locate(kind, index, "table"))


def check_layout(layout: Layout, plan: Mapping[str, Any], origins: Origins | None = None) -> None:
    """Raise :class:`SpecError` for an axis, category, suite or baseline that the experiment does not have."""
    for index, table in enumerate(layout.tables):
        _check_table(table, plan, (origins or Origins()).inside("tables", index))
    for index, correlation in enumerate(layout.correlations):
        _check_correlation(correlation, plan, (origins or Origins()).inside("correlations", index))
    keys = {table.name: _column_keys(table, plan) for table in layout.tables}
    for index, figure in enumerate(layout.figures):
        for place, key in enumerate(figure.columns):
            known = keys[figure.table]
            _known("column", key, known, (origins or Origins()).locate("figures", index, "columns", place))
    suites = [name for name, about in plan["suites"].items() if about["subject"] == "policy"]
    for index, curve in enumerate(layout.curves):
        if curve.suite is not None:
            _known("suite", curve.suite, suites, (origins or Origins()).locate("curves", index, "suite"))


def _check_table(table: TableLayout, plan: Mapping[str, Any], origins: Origins) -> None:
    def check(kind: str, name: str, known: Iterable[str], *path: str | int) -> None:
        _known(kind, name, known, origins.locate(*path))

    entries = [entry for entry in plan["subjects"] if entry["subject"] == table.subject]
    axes = axis_names(entries)
    baselines = {baseline_name(entry) for entry in entries} - {""}
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == table.subject}
    for i, row in enumerate(table.rows):
        check("axis", row.axis, axes, "rows", i, *(("axis",) if origins.has("rows", i, "axis") else ()))
    _check_columns(table.columns, table.subject, plan, origins.inside("columns"))
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


def _check_columns(columns: Sequence[Column], subject: str, plan: Mapping[str, Any], origins: Origins) -> None:
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == subject}
    categories = {about["category"] for about in suites.values()}
    for i, column in enumerate(columns):
        if column.category is not None:
            _known("category", column.category, categories, origins.locate(i, "category"))
        if column.suite is not None:
            _known("suite", column.suite, suites, origins.locate(i, "suite"))
            metrics = suites[column.suite].get("metrics")
            if column.metric is not None and metrics is not None:
                _known(f"metric of suite {column.suite}", column.metric, metrics, origins.locate(i, "metric"))
        for j, name in enumerate(column.average or ()):
            _known("category", name, categories, origins.locate(i, "average", j))


def _check_correlation(layout: CorrelationLayout, plan: Mapping[str, Any], origins: Origins) -> None:
    _check_columns(layout.reward_model, "reward_model", plan, origins.inside("reward_model"))
    _check_columns(layout.policy, "policy", plan, origins.inside("policy"))
    methods = {str(entry["axes"].get("algorithm")) for entry in plan["subjects"] if entry["role"] == "cell"}
    for i, name in enumerate(layout.algorithms):
        _known("algorithm of the experiment", name, methods - {"None"}, origins.locate("algorithms", i))


def _column_keys(table: TableLayout, plan: Mapping[str, Any]) -> list[str]:
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


def _known(kind: str, name: str, known: Iterable[str], location: Location) -> None:
    names = list(known)
    if name not in names:
        raise SpecError(f"unknown {kind} {name!r}", location=location, hint=suggestion(name, names))


CATEGORY_ORDER = ("factuality", "reasoning", "coding", "truthfulness", "safety", "instruction-following", "chat")


def averaged_categories(suites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the categories of these suites that an unnamed average takes, the study's first and in its order."""
    averaged = (about for about in suites.values() if not about.get("of_axis"))
    found = dict.fromkeys(about["category"] for about in averaged if about["category"] not in NOT_AVERAGED)
    return sorted(found, key=lambda name: CATEGORY_ORDER.index(name) if name in CATEGORY_ORDER else 99)


def baseline_name(entry: Mapping[str, Any]) -> str:
    """Return the name of a subject of the plan that is a baseline (its label where the plan gives none), else ""."""
    return str(entry.get("baseline") or entry["label"]) if entry["role"] == "baseline" else ""


def axis_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes that any of the plan's subjects has, in first-seen order."""
    return list(dict.fromkeys(key for entry in entries for key in entry["axes"]))


def varying_axes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes with more than one value among the cells, in first-seen order."""
    cells = [entry["axes"] for entry in entries if entry["role"] == "cell"]
    names = dict.fromkeys(key for axes in cells for key in axes)
    return [name for name in names if len({repr(axes.get(name)) for axes in cells}) > 1]


def default_layout(plan: Mapping[str, Any], *, data: bool = False) -> Layout:
    """Lay out an experiment that declares no report: rows from what varies, all categories, the average, baselines.

    ``data`` adds the table of the sets that are read, which one that evaluates nothing has as well.
    """
    tables = []
    for subject, name, title in (
        ("policy", "main", plan.get("question") or plan["name"]),
        ("reward_model", "reward-models", "Reward models"),
    ):
        table = _default_table(plan, subject, name, title)
        if table is not None:
            tables.append(table)
    if not tables and not data:
        raise SpecError(f"experiment {plan['name']!r} evaluates nothing: there is no table to make")
    keys = {table.name: _column_keys(table, plan) for table in tables if table.subject == "policy"}
    figures = tuple(
        FigureLayout(name=f"{name}-average", table=name) if "average" in own
        else FigureLayout(name=f"{name}-{own[0]}", table=name, columns=own[:1])
        for name, own in keys.items()
    )  # fmt: skip
    return Layout(title=plan["name"], tables=tuple(tables), figures=figures, data=data)


def _policy_columns(suites: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return the columns about policies: categories, their average, then what has no part in it.

    A category whose suites have different units has no mean: its suites are columns.
    """
    units: dict[str, set[str]] = {}
    for about in suites.values():
        units.setdefault(about["category"], set()).add(about["unit"])
    averaged = averaged_categories(suites)
    whole = [category for category in averaged if len(units[category]) == 1]
    columns: list[Any] = ["categories"] if whole == averaged else []
    for category in [*(averaged if whole != averaged else ()), *sorted(units.keys() & NOT_AVERAGED - {"reward"})]:
        members = [suite for suite, about in suites.items() if about["category"] == category]
        alone = [{"suite": suite} for suite in members]
        columns += [{"category": category}] if len(units[category]) == 1 else alone
    of_shares = [category for category in averaged if units[category] == {"proportion"}]
    if len(of_shares) > 1:
        place = 1 if whole == averaged else len(columns)
        columns.insert(place, "average" if of_shares == averaged else {"average": of_shares})
    return [*columns, *({"suite": suite} for suite, about in suites.items() if _classifies(about))]


def _default_table(plan: Mapping[str, Any], subject: str, name: str, title: str) -> TableLayout | None:
    entries = [entry for entry in plan["subjects"] if entry["subject"] == subject]
    suites = [about for about in plan["suites"].values() if about["subject"] == subject]
    if not entries or not suites:
        return None
    rows = _default_rows(plan, entries, subject)
    if subject == "reward_model":
        columns: list[Any] = ["suites"]
    else:
        columns = _policy_columns({suite: about for suite, about in plan["suites"].items() if about in suites})
    algorithms = {str(entry["axes"].get("algorithm")) for entry in entries if entry["role"] == "cell"}
    deltas = []
    # Settings of one method's own have no counterpart in the other: a difference would be between any two of them.
    is_tuned = any(axis.startswith(("ppo.", "dpo.")) for axis in rows)
    if subject == "policy" and {"ppo", "dpo"} <= algorithms and not is_tuned:
        match = [axis for axis in rows if axis != "algorithm" and _is_read_by(entries, axis, ("ppo", "dpo"))]
        deltas = [{"axis": "algorithm", "values": ("ppo", "dpo"), "match_on": match, "label": "Δ PPO − DPO"}]
    baselines = [item for item in dict.fromkeys(baseline_name(entry) for entry in entries) if item]
    to = "sft" if "sft" in baselines else (baselines[0] if baselines else None)
    return TableLayout.model_validate({
        "name": name, "title": title, "subject": subject, "rows": rows, "columns": columns,
        "baselines": baselines, "deltas": deltas, "compare": {"to": to},
    })  # fmt: skip


def _classifies(about: Mapping[str, Any]) -> bool:
    """Whether a suite is about a policy's implicit reward: a mean of two such suites would mean nothing."""
    return bool(about["subject"] == "policy" and about["category"] == "reward")


def _default_rows(plan: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], subject: str) -> list[str]:
    """Dataset and algorithm, then the axes of the grid that vary, then what else tells two cells of a row apart."""
    known, varying = axis_names(entries), [axis for axis in varying_axes(entries) if axis not in SEED_AXES]
    cells = [entry["axes"] for entry in entries if entry["role"] == "cell"]
    is_trained = any(axes.get("algorithm") != "none" for axes in cells)
    main = ("dataset", "algorithm") if is_trained or not cells else ("policy",)
    rows = [axis for axis in main if axis in known] if subject == "policy" else []
    rows += [axis for axis in varying if axis in plan.get("axes", ()) and axis not in rows]
    for axis in varying:
        if axis not in rows:
            values: dict[tuple[str, ...], set[str]] = {}
            for axes in cells:
                values.setdefault(tuple(repr(axes.get(row)) for row in rows), set()).add(repr(axes.get(axis)))
            rows += [axis] if any(len(found) > 1 for found in values.values()) else []
    return rows or known[:1] or ["seed"]


def _is_read_by(entries: Sequence[Mapping[str, Any]], axis: str, algorithms: Iterable[str]) -> bool:
    """Whether cells of every one of these algorithms have a value on ``axis``: two rows can agree on it."""
    with_value = {entry["axes"].get("algorithm") for entry in entries if entry["axes"].get(axis) is not None}
    return set(algorithms) <= with_value

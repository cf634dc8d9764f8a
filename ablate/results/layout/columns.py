"""Columns as declared: of numbers, of facts about a row, of health fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, unknown_name
from ablate.catalogs.origins import Origins
from ablate.results.layout.names import Scalar, averaged_categories, refuse_unknown


class Minus(Closed):
    """What a column subtracts: the same number of runs with other values of axes, or of another suite or metric."""

    where: dict[str, Scalar] = Field(default_factory=dict, description="values of axes of the runs subtracted")
    suite: str | None = None
    task: str | None = None
    metric: str | None = None

    @property
    def key(self) -> str:
        """What is subtracted, in a column's name."""
        return "/".join(part for part in (self.suite, self.task, self.metric) if part) + where_key(self.where)


class Column(Closed):
    """One column of numbers, or a family of them: a category, a suite, one metric of a suite, an average.

    Written ``average``, ``categories`` or ``suites`` for short; ``categories`` and ``suites`` stand for all the
    experiment has. ``where`` and ``by`` make columns of an axis' values, which then make no rows; ``minus`` makes a
    column of differences.
    """

    category: str | None = None
    suite: str | None = None
    task: str | None = Field(default=None, description="with suite: one task of it")
    metric: str | None = Field(default=None, description="with suite: this metric instead of the suite's score")
    average: tuple[str, ...] | None = Field(
        default=None, description="mean of these categories; empty: of all that are proportions"
    )
    all: Literal["categories", "suites"] | None = None
    where: dict[str, Scalar] = Field(default_factory=dict, description="only runs with these values of axes")
    by: str | None = Field(default=None, description="a column for each value of this axis")
    minus: Minus | None = None
    match_on: tuple[str, ...] | None = Field(
        default=None, description="with minus: axes on which what is subtracted agrees; null: all that make rows"
    )
    label: str | None = Field(
        default=None, description="its own heading; {name} is what it measures, {value} the values of by and where"
    )
    heading: str | None = Field(
        default=None, description="over this column and its neighbours of the same heading; {name}, {value} as in label"
    )
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
        if self.match_on is not None and self.minus is None:
            raise PydanticCustomError("column", "match_on goes with minus")
        if self.minus is not None and not (self.minus.where or self.minus.key):
            raise PydanticCustomError("column", "minus says what is subtracted: where, suite, task or metric")
        if self.minus is not None and self.suite is None and (self.minus.suite or self.minus.task or self.minus.metric):
            raise PydanticCustomError("column", "suite, task and metric of minus go with a column of a suite")
        self._check_words()
        return self

    def _check_words(self) -> None:
        for word in re.findall(r"\{(\w*)\}", f"{self.label} {self.heading}"):
            if word not in ("name", "value"):
                raise unknown_name("word in braces", word, ("name", "value"))
            if word == "value" and not (self.by or self.where):
                raise PydanticCustomError("column", "{value} goes with by or where, whose values it stands for")

    @property
    def key(self) -> str:
        """The name of a single column in figures and files."""
        return self._measured_key + where_key(self.where) + (f"-{self.minus.key}" if self.minus else "")

    @property
    def _measured_key(self) -> str:
        if self.average is not None:
            return f"average({','.join(self.average)})" if self.average else "average"
        return self.category or "/".join(part for part in (self.suite, self.task, self.metric) if part)

    @property
    def spread_axes(self) -> set[str]:
        """The axes whose values make columns, so that they need make no rows."""
        own = {*self.where, *([self.by] if self.by else [])}
        return own if self.minus is None or self.match_on is not None else own | self.minus.where.keys()

    def written_out(
        self, suites: Mapping[str, Mapping[str, Any]], cells: Sequence[Mapping[str, Any]] = ()
    ) -> list[Column]:
        """Return the single columns that this one stands for, where there are ``suites`` and cells with these axes."""
        columns = [self]
        if self.all is not None:
            names = suites if self.all == "suites" else averaged_categories(suites)
            field = "suite" if self.all == "suites" else "category"
            columns = [self.model_copy(update={"all": None, field: name}) for name in names]
        if self.by is None:
            return columns
        values = [value for value in dict.fromkeys(axes.get(self.by) for axes in cells) if value is not None]
        pairs = [(column, value) for column in columns for value in values]
        if "{value}" in (self.heading or "") and "{name}" not in (self.heading or ""):
            pairs.sort(key=lambda pair: values.index(pair[1]))  # a heading is over neighbours
        return [
            column.model_copy(update={"by": None, "where": {**self.where, self.by: value}}) for column, value in pairs
        ]


def where_key(where: Mapping[str, Any]) -> str:
    """Write values of axes behind the name of a number: ``[algorithm=ppo]``."""
    return f"[{','.join(f'{axis}={value}' for axis, value in where.items())}]" if where else ""


def named_column(name: str, suites: Mapping[str, Mapping[str, Any]]) -> Column | None:
    """Return the column that is named by ``average``, a category, a suite or ``suite/metric``; None where none is."""
    suite, slash, metric = name.partition("/")
    if name == "average":
        return Column(average=())
    if name not in suites and any(facts["category"] == name for facts in suites.values()):
        return Column(category=name)
    return Column(suite=suite, metric=metric if slash else None) if suite in suites else None


class Attribute(Closed):
    """A column of facts about a row: its data's pairs or catalog entry, its runs (n), its training, how it is tuned."""

    name: Literal[
        "samples",
        "title",
        "label_kind",
        "licence",
        "runs",
        "trained_pairs",
        "steps",
        "policy_samples",
        "gpu_hours",
        "cpu_hours",
        "tuned",
    ]
    label: str | None = None
    heading: str | None = Field(default=None, description="over this column and its neighbours with the same heading")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Health(Closed):
    """A column of a health field, averaged over the table's suites that report it (or read from one suite)."""

    field: str = Field(description="e.g. mean_length, truncated, extraction_failed")
    suite: str | None = None
    label: str | None = None
    heading: str | None = Field(default=None, description="over this column and its neighbours with the same heading")
    digits: int = Field(default=1, ge=0, le=6)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"field": value} if isinstance(value, str) else value

    @property
    def key(self) -> str:
        """The name of the column in figures and files."""
        return f"{self.field}({self.suite})" if self.suite else self.field


class NumberFormat(Closed):
    """How numbers are written."""

    percent: bool = Field(default=True, description="proportions times 100, without a sign")
    digits: int = Field(default=1, ge=0, le=6, description="decimals of proportions")
    other_digits: int = Field(default=2, ge=0, le=6, description="decimals of rewards and counts")
    spread: Literal["sd", "stderr", "ci", "none"] = Field(
        default="sd", description="behind means over runs: standard deviation, standard error, or half a 95 % interval"
    )
    siunitx: bool = Field(default=False, description="LaTeX: numbers in S columns, aligned at the decimal point")


def check_columns(columns: Sequence[Column], subject: str, plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a category, suite or metric that the experiment does not have."""
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == subject}
    categories = {about["category"] for about in suites.values()}
    subjects = [entry["axes"] for entry in plan["subjects"] if entry["subject"] == subject]
    for i, column in enumerate(columns):
        if column.category is not None:
            refuse_unknown("category", column.category, categories, origins.locate(i, "category"))
        if column.suite is not None:
            refuse_unknown("suite", column.suite, suites, origins.locate(i, "suite"))
            metrics = suites[column.suite].get("metrics")
            if column.metric is not None and metrics is not None:
                refuse_unknown(f"metric of suite {column.suite}", column.metric, metrics, origins.locate(i, "metric"))
        for j, name in enumerate(column.average or ()):
            refuse_unknown("category", name, categories, origins.locate(i, "average", j))
        _check_axes(column, subjects, origins.inside(i))
        if column.minus is not None and column.minus.suite is not None:
            refuse_unknown("suite", column.minus.suite, suites, origins.locate(i, "minus", "suite"))


def _check_axes(column: Column, subjects: Sequence[Mapping[str, Any]], origins: Origins) -> None:
    known = list(dict.fromkeys(axis for axes in subjects for axis in axes))
    if column.by is not None:
        refuse_unknown("axis", column.by, known, origins.locate("by"))
    for j, axis in enumerate(column.match_on or ()):
        refuse_unknown("axis", axis, known, origins.locate("match_on", j))
    minus = column.minus.where if column.minus else {}
    for path, where in ((("where",), column.where), (("minus", "where"), minus)):
        for axis, value in where.items():
            refuse_unknown("axis", axis, known, origins.locate(*path, axis))
            values = {str(axes.get(axis)) for axes in subjects}
            refuse_unknown(f"value of {axis}", str(value), values, origins.locate(*path, axis))

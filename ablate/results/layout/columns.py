"""Columns as declared: of numbers, of facts about a row, of health fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, unknown_name
from ablate.catalogs.origins import Origins
from ablate.results.layout.names import averaged_categories, refuse_unknown


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


class NumberFormat(Closed):
    """How numbers are written."""

    percent: bool = Field(default=True, description="proportions times 100, without a sign")
    digits: int = Field(default=1, ge=0, le=6, description="decimals of proportions")
    other_digits: int = Field(default=2, ge=0, le=6, description="decimals of rewards and counts")


def check_columns(columns: Sequence[Column], subject: str, plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a category, suite or metric that the experiment does not have."""
    suites = {name: about for name, about in plan["suites"].items() if about["subject"] == subject}
    categories = {about["category"] for about in suites.values()}
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

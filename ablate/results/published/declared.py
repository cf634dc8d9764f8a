"""A published table as declared in the YAML file beside its CSV: source, columns, and what its caption claims."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, Names

Selection = dict[str, str]
"""Label columns to the value that rows must have there."""

Day = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
"""A day, month or year; YAML reads a whole day as a date."""


class LabelColumn(Closed):
    """A column of names."""

    heading: str
    values: dict[str, str] = Field(default_factory=dict, description="how to write a value; others as they are")
    once: bool = Field(default=False, description="whether a value that repeats the one above is left out")


class NumberColumn(Closed):
    """A column of numbers."""

    heading: str
    digits: int | None = Field(default=None, ge=0, le=6, description="decimals to write; null: those of the CSV")
    mean_of: Names = Field(default=(), description="columns that it is said to be the plain mean of")


class Difference(Closed):
    """Rows that are said to be the difference of two others: where ``column`` has ``value``, ``first`` - ``second``."""

    column: str
    value: str
    first: str
    second: str


class Colouring(Closed):
    """Blue and orange by the plain sign of a difference: to one row, or of difference rows themselves."""

    against: Selection | None = Field(default=None, description="the row that others are compared with; null: zero")


class Claim(Closed):
    """A sentence about the table that can be computed from it: a mean or sum of a column, or a difference of two."""

    text: str
    column: str
    of: Selection = Field(default_factory=dict, description="rows that the number is taken over; empty: all")
    minus: Selection | None = Field(default=None, description="rows whose number is subtracted")
    statistic: Literal["mean", "sum"] = "mean"
    equals: float | None = None
    precision: float | None = Field(
        default=None,
        gt=0,
        description="with equals: size of its last written place (17.2k: 100); null: by its decimals",
    )
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_verdict(self) -> Claim:
        if sum(value is not None for value in (self.equals, self.above, self.below)) != 1:
            raise PydanticCustomError("claim", "a claim has one of equals, above, below")
        return self


class PublishedTable(Closed):
    """Where a table was published, what its columns are, and what it says of itself."""

    caption: str
    source: str = Field(min_length=1, description="who published it, and where")
    date: Day | None = Field(default=None, description="of the source, as far as it is recorded")
    note: str = Field(default="", description="what a reader must know, e.g. that numbers are preliminary")
    labels: dict[str, LabelColumn] = Field(min_length=1, description="columns of names, by their names in the CSV")
    columns: dict[str, NumberColumn] = Field(min_length=1, description="columns of numbers, by their names in the CSV")
    headings: str | None = Field(default=None, description="a column of the CSV whose values are headings over rows")
    baselines: tuple[Selection, ...] = Field(default=(), description="rows that are set apart from the others")
    differences: tuple[Difference, ...] = ()
    colour: Colouring | None = None
    claims: tuple[Claim, ...] = ()

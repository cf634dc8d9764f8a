"""Published numbers beside ours, as declared: which row and column of a published table belong to which of ours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed


class PublishedAxis(Closed):
    """Which of our axes a column of names stands for."""

    axis: str
    values: dict[str, str] = Field(default_factory=dict, description="our value to the name there; others are equal")


class PublishedBeside(Closed):
    """Rows under a table's own: the published number of the same row, or ours less it."""

    table: str = Field(description="name of a published table, e.g. unpacking/table2")
    show: Literal["rows", "difference"] = "rows"
    rows: dict[str, PublishedAxis] = Field(min_length=1, description="its columns of names, each with our axis")
    baselines: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="our baseline to the names of its row there"
    )
    columns: dict[str, str] = Field(min_length=1, description="key of our column to its column")

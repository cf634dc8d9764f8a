"""Figures as declared: bars from a table's numbers, learning curves of its rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ablate.catalogs.closed import Closed


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

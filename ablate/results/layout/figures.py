"""Figures as declared, one class for each kind, and how they are checked against a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError

from ablate.catalogs.closed import Closed, unknown_name
from ablate.catalogs.origins import Origins
from ablate.errors import SpecError
from ablate.results.layout.names import Scalar, axis_names, baseline_name, refuse_unknown
from ablate.results.layout.tables import TableLayout, column_keys


class Figure(Closed):
    """What every figure has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""


class RowsFigure(Figure):
    """A figure about the rows of a table of the report."""

    table: str = Field(description="name of a table of this report")


class TableFigure(RowsFigure):
    """A figure of a finished table's numbers."""

    columns: tuple[str, ...] = Field(default=(), description="keys of the table's columns; empty: the average")


class BarLayout(TableFigure):
    """Rows as bars, one panel a column; dots under full names where bars have no room or no colours."""

    kind: Literal["bar"] = "bar"


class Step(Closed):
    """One step of a recipe: the row of the table with these values on these axes."""

    label: str = Field(description="what this step is called, e.g. + DPO")
    where: dict[str, Scalar] = Field(
        min_length=1, description="axes of one row, e.g. {dataset: hh, algorithm: dpo}; of a baseline {baseline: sft}"
    )


class RecipeLayout(TableFigure):
    """Bars for each column, one a step of a recipe that adds one thing at a time."""

    kind: Literal["recipe"]
    steps: tuple[Step, ...] = Field(min_length=2)


class DumbbellLayout(TableFigure):
    """The difference rows of a table: both numbers on a line, coloured where their difference is significant."""

    kind: Literal["dumbbell"]


class HeatmapLayout(TableFigure):
    """Rows by columns, every number written; empty ``columns`` are all the table has."""

    kind: Literal["heatmap"]
    against: str | None = Field(
        default=None, description="baseline whose difference is the colour; null: from a column's lowest to its highest"
    )


class ScalingLayout(TableFigure):
    """Lines over the values of an axis, such as the size of the reward model; other rows are levels."""

    kind: Literal["scaling"]
    axis: str
    sizes: dict[str, float] = Field(
        default_factory=dict, description="value of the axis to its size, on a logarithmic x axis; empty: equal steps"
    )
    label: str | None = Field(default=None, description="name of the x axis; null: the heading of the axis' column")


class RadarLayout(TableFigure):
    """Rows as polygons over three or more columns of one unit."""

    kind: Literal["radar"]
    columns: tuple[str, ...] = Field(min_length=3)


class CurveLayout(RowsFigure):
    """Learning curves: the rows of a table that are trained on their own samples, mean and band over runs.

    Rows without a curve (methods that learn from fixed data, baselines) are horizontal lines at the suite's score.
    """

    kind: Literal["curves"] = "curves"
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


class FrontLayout(RowsFigure):
    """What on-policy rows reach at which distance from the reference: reward over KL as training goes on."""

    kind: Literal["front"]
    y: str = Field(default="score", description="a value of the training curve: score, gold, …")
    label: str | None = Field(default=None, description="name of the y axis; null: y")


class TrainingLayout(RowsFigure):
    """Training curves of any cells, offline methods and reward models too: one panel for each value."""

    kind: Literal["training"]
    y: tuple[str, ...] = Field(default=("loss",), min_length=1, description="values of the curve: loss, grad_norm, …")


class ScatterLayout(Figure):
    """The points behind a table of correlations: every pair of its numbers that one reward model has."""

    kind: Literal["scatter"]
    correlation: str = Field(description="name of a table of correlations of this report")


class SearchFigure(Figure):
    """A figure of a sweep's trials."""


class HistoryLayout(SearchFigure):
    """What trial after trial reached, and the best so far; pruned and failed ones at the lower edge."""

    kind: Literal["history"]
    title: str = "Trials in order"


class SlicesLayout(SearchFigure):
    """What trials reached over the values of each searched key."""

    kind: Literal["slices"]
    title: str = "Trials by value"


class ParallelLayout(SearchFigure):
    """Trials as lines across all searched keys, coloured by what they reached."""

    kind: Literal["parallel"]
    title: str = "Trials across all keys"


class ImportanceLayout(SearchFigure):
    """How much of what trials reached each searched key explains: Optuna's functional analysis of variance."""

    kind: Literal["importance"]
    title: str = "Importance of the searched keys"


class ParetoLayout(SearchFigure):
    """Trials over every pair of objectives, with the Pareto front."""

    kind: Literal["pareto"]
    title: str = "Pareto front"


KINDS: Mapping[str, type[Figure]] = {
    "bar": BarLayout,
    "recipe": RecipeLayout,
    "dumbbell": DumbbellLayout,
    "heatmap": HeatmapLayout,
    "scaling": ScalingLayout,
    "radar": RadarLayout,
    "curves": CurveLayout,
    "front": FrontLayout,
    "training": TrainingLayout,
    "scatter": ScatterLayout,
    "history": HistoryLayout,
    "slices": SlicesLayout,
    "parallel": ParallelLayout,
    "importance": ImportanceLayout,
    "pareto": ParetoLayout,
}
"""Every kind of figure, by the name that reports write."""


def _of_its_kind(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind = value.get("kind", "bar")
    if kind not in KINDS:
        problem = unknown_name("kind of figure", str(kind), KINDS)
        raise ValidationError.from_exception_data("figure", [{"type": problem, "loc": ("kind",), "input": kind}])
    return KINDS[kind].model_validate(value)


FigureLayout: TypeAlias = Annotated[Figure, BeforeValidator(_of_its_kind)]
"""A figure of the class that its ``kind`` names; without one, bars."""


def check_figure(figure: Figure, tables: Mapping[str, TableLayout], plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a column, axis, value, baseline or suite that table or experiment does not have."""
    if isinstance(figure, SearchFigure):
        _check_search(figure, plan.get("sweep"), origins)
    if not isinstance(figure, RowsFigure):
        return
    table = tables[figure.table]
    entries = [entry for entry in plan["subjects"] if entry["subject"] == table.subject]
    if isinstance(figure, TableFigure):
        known = column_keys(table, plan)
        for place, key in enumerate(figure.columns):
            refuse_unknown("column", key, known, origins.locate("columns", place))
    if isinstance(figure, ScalingLayout):
        refuse_unknown("axis", figure.axis, [row.axis for row in table.rows], origins.locate("axis"))
        values = {str(entry["axes"][figure.axis]) for entry in entries if entry["axes"].get(figure.axis) is not None}
        for value in figure.sizes:
            refuse_unknown(f"value of {figure.axis}", value, values, origins.locate("sizes", value))
        if missing := sorted(values - figure.sizes.keys()) if figure.sizes else []:
            raise SpecError(f"no size of {', '.join(missing)}", location=origins.locate("sizes"))
    if isinstance(figure, HeatmapLayout) and figure.against is not None:
        refuse_unknown("baseline of the table", figure.against, table.baselines, origins.locate("against"))
    if isinstance(figure, DumbbellLayout) and not table.deltas:
        raise SpecError(f"table {table.name!r} has no deltas to draw", location=origins.locate("table"))
    if isinstance(figure, RecipeLayout):
        for place, step in enumerate(figure.steps):
            _check_step(step, table, entries, origins.inside("steps", place))
    if isinstance(figure, CurveLayout) and figure.suite is not None:
        suites = [name for name, about in plan["suites"].items() if about["subject"] == table.subject]
        refuse_unknown("suite", figure.suite, suites, origins.locate("suite"))


def _check_search(figure: SearchFigure, sweep: Mapping[str, Any] | None, origins: Origins) -> None:
    if sweep is None:
        raise SpecError(
            "there are no trials to draw: the experiment has no section sweep", location=origins.locate("kind")
        )
    if isinstance(figure, ParetoLayout) and len(sweep["maximise"]) < 2:
        raise SpecError("a Pareto front is of several objectives, the sweep has one", location=origins.locate("kind"))
    if isinstance(figure, ParallelLayout | ImportanceLayout) and len(sweep["search"]) < 2:
        raise SpecError("several keys are compared here, the sweep searches one", location=origins.locate("kind"))


def search_figures(sweep: Mapping[str, Any]) -> tuple[SearchFigure, ...]:
    """Return the figures that a sweep has by default."""
    kinds = ["history", "slices"]
    kinds += ["parallel", "importance"] if len(sweep["search"]) > 1 else []
    kinds += ["pareto"] if len(sweep["maximise"]) > 1 else []
    return tuple(_of_its_kind({"kind": kind, "name": kind}) for kind in kinds)


def _check_step(step: Step, table: TableLayout, entries: list[Mapping[str, Any]], origins: Origins) -> None:
    for axis, value in step.where.items():
        place = origins.locate("where", axis)
        refuse_unknown("axis", axis, ["baseline", *axis_names(entries)], place)
        if axis == "baseline":
            refuse_unknown("baseline of the table", str(value), table.baselines, place)
        else:
            cells = [entry["axes"].get(axis) for entry in entries if not baseline_name(entry)]
            refuse_unknown(f"value of {axis}", str(value), {str(known) for known in cells}, place)

"""A report as declared: its tables, figures and correlations, read from a file and checked against a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, Names, validated
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError
from ablate.results.layout.correlations import CorrelationLayout, check_correlation
from ablate.results.layout.figures import FigureLayout, RowsFigure, ScatterLayout, check_figure
from ablate.results.layout.names import published_names, refuse_unknown
from ablate.results.layout.tables import TableLayout, check_table


class Layout(Closed):
    """A report: its tables and figures."""

    title: str = ""
    tables: tuple[TableLayout, ...] = ()
    figures: tuple[FigureLayout, ...] = ()
    correlations: tuple[CorrelationLayout, ...] = ()
    data: bool = Field(default=False, description="whether the table of the sets that are read follows")
    published: Names = Field(default=(), description="published tables that follow as they were printed")

    @model_validator(mode="after")
    def _has_tables(self) -> Layout:
        if not (self.tables or self.correlations or self.data or self.published):
            raise PydanticCustomError("tables", "a report needs tables, correlations, published tables or data: true")
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
    for index, name in enumerate(layout.published):
        refuse_unknown("published table", name, published_names(Path.cwd()), origins.locate("published", index))
    tables = [table.name for table in layout.tables]
    correlations = [one.name for one in layout.correlations]
    written = [(("tables", index), name) for index, name in enumerate(tables)]
    written += [(("correlations", index), name) for index, name in enumerate(correlations)]
    drawn = [(("figures", index), figure.name) for index, figure in enumerate(layout.figures)]
    for places in (written, drawn):
        for number, (place, name) in enumerate(places):
            if name in [other for _, other in places[:number]]:
                raise SpecError(f"{name!r} is used twice", location=origins.locate(*place, "name"))
    for index, figure in enumerate(layout.figures):
        own = origins.inside("figures", index)
        if isinstance(figure, RowsFigure):
            refuse_unknown("table", figure.table, tables, own.locate("table"))
        if isinstance(figure, ScatterLayout):
            refuse_unknown("table of correlations", figure.correlation, correlations, own.locate("correlation"))


def check_layout(layout: Layout, plan: Mapping[str, Any], origins: Origins | None = None) -> None:
    """Raise :class:`SpecError` for an axis, category, suite or baseline that the experiment does not have."""
    for index, table in enumerate(layout.tables):
        check_table(table, plan, (origins or Origins()).inside("tables", index))
    for index, correlation in enumerate(layout.correlations):
        check_correlation(correlation, plan, (origins or Origins()).inside("correlations", index))
    tables = {table.name: table for table in layout.tables}
    for index, figure in enumerate(layout.figures):
        check_figure(figure, tables, plan, (origins or Origins()).inside("figures", index))

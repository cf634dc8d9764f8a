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
from ablate.results.layout.claims import ClaimLayout, check_claims
from ablate.results.layout.correlations import CorrelationLayout, check_correlation
from ablate.results.layout.effects import EffectsLayout, RankingLayout, check_effects
from ablate.results.layout.figures import FigureLayout, RowsFigure, ScatterLayout, check_figure
from ablate.results.layout.names import published_file, published_names, refuse_unknown
from ablate.results.layout.tables import TableLayout, check_table, score_keys


class Layout(Closed):
    """A report: its tables and figures."""

    title: str = ""
    tables: tuple[TableLayout, ...] = ()
    figures: tuple[FigureLayout, ...] = ()
    correlations: tuple[CorrelationLayout, ...] = ()
    effects: tuple[EffectsLayout, ...] = ()
    rankings: tuple[RankingLayout, ...] = ()
    claims: tuple[ClaimLayout, ...] = ()
    trials: bool = Field(default=False, description="whether a sweep's table of trials comes first")
    data: bool = Field(default=False, description="whether the table of the sets that are read follows")
    scores: bool = Field(default=False, description="whether a table of every suite's score follows, a row for each")
    published: Names = Field(default=(), description="published tables that follow as they were printed")

    @model_validator(mode="after")
    def _has_tables(self) -> Layout:
        if not (
            self.tables
            or self.correlations
            or self.effects
            or self.claims
            or self.trials
            or self.data
            or self.scores
            or self.published
        ):
            message = (
                "a report needs tables, correlations, effects, claims, published tables, trials: true, data: true or "
                "scores: true"
            )
            raise PydanticCustomError("tables", message)
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
    written += [(("effects", index), one.name) for index, one in enumerate(layout.effects)]
    written += [(("rankings", index), one.name) for index, one in enumerate(layout.rankings)]
    written += [(("claims", 0), "claims")] if layout.claims else []
    distinct = ((index, name) for index, name in enumerate(layout.published) if name not in layout.published[:index])
    written += [(("published", index), published_file(name)) for index, name in distinct]
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
    for index, ranking in enumerate(layout.rankings):
        refuse_unknown("table", ranking.table, tables, origins.locate("rankings", index, "table"))


def check_layout(layout: Layout, plan: Mapping[str, Any], origins: Origins | None = None) -> None:
    """Raise :class:`SpecError` for an axis, category, suite or baseline that the experiment does not have."""
    if layout.trials and "sweep" not in plan:
        where = (origins or Origins()).locate("trials")
        raise SpecError("there are no trials: the experiment has no section sweep", location=where)
    for index, table in enumerate(layout.tables):
        check_table(table, plan, (origins or Origins()).inside("tables", index))
    for index, correlation in enumerate(layout.correlations):
        check_correlation(correlation, plan, (origins or Origins()).inside("correlations", index))
    tables = {table.name: table for table in layout.tables}
    for index, effects in enumerate(layout.effects):
        check_effects(effects, plan, (origins or Origins()).inside("effects", index))
    check_claims(layout.claims, plan, origins or Origins())
    keys = {table.name: score_keys(table, plan, differences=False) for table in layout.tables}
    for index, ranking in enumerate(layout.rankings):
        where = (origins or Origins()).locate("rankings", index, "column")
        refuse_unknown("column", ranking.column, keys[ranking.table], where)
    for index, figure in enumerate(layout.figures):
        check_figure(figure, tables, plan, (origins or Origins()).inside("figures", index))

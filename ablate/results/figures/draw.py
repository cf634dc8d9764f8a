"""All figures of a report. This module loads matplotlib; import it only to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

from ablate.results.figures import style
from ablate.results.figures.bars import draw_bars, draw_recipe
from ablate.results.figures.curves import read_curves, read_front, read_training
from ablate.results.figures.deltas import draw_dumbbells
from ablate.results.figures.heatmap import draw_heatmap
from ablate.results.figures.lines import draw_curves, draw_front, draw_scaling, draw_training
from ablate.results.figures.points import draw_scatter
from ablate.results.figures.radar import draw_radar
from ablate.results.figures.style import Drawing
from ablate.results.layout import Layout, TableLayout
from ablate.results.layout.figures import (
    BarLayout,
    CurveLayout,
    DumbbellLayout,
    Figure,
    FrontLayout,
    HeatmapLayout,
    RadarLayout,
    RecipeLayout,
    RowsFigure,
    ScalingLayout,
    ScatterLayout,
    SearchFigure,
    TableFigure,
    TrainingLayout,
)
from ablate.results.long import Results
from ablate.results.tables.table import Table

if TYPE_CHECKING:
    from ablate.trials import Search


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn: its name, its caption, its SVG element for a page, its files (PDF, then PNG) if any."""

    name: str
    caption: str
    svg: str
    files: tuple[Path, ...] = ()


def draw_figures(
    results: Results,
    layout: Layout,
    tables: Sequence[Table],
    folder: Path | None = None,
    search: Search | None = None,
) -> list[Drawn]:
    """Draw every figure of a report that has numbers; with a ``folder`` each is written there as PDF and PNG.

    ``search`` has the trials, where the experiment is a sweep that has begun.
    """
    by_name = {table.name: table for table in tables}
    found = []
    with matplotlib.rc_context(style.STYLE):  # type: ignore[arg-type]
        drawings = [(figure, draw(figure, results, layout, by_name, search)) for figure in layout.figures]
        for figure, drawing in drawings:  # all are drawn before the first is written
            if drawing is not None:
                files = style.write(drawing.figure, figure.name, folder) if folder else ()
                svg = style.to_svg(drawing.figure, figure.name)
                found.append(Drawn(figure.name, _caption(figure, drawing, by_name), svg, tuple(files)))
    return found


def _caption(figure: Figure, drawing: Drawing, tables: Mapping[str, Table]) -> str:
    table = figure.table if isinstance(figure, RowsFigure) else getattr(figure, "correlation", "")
    title = figure.title or (tables[table].title if table else "")
    stop = "." if drawing.remarks and title[-1:].isalnum() else ""
    return " ".join(filter(None, [title + stop, *drawing.remarks]))


def draw(
    figure: Figure,
    results: Results,
    layout: Layout,
    tables: Mapping[str, Table],
    search: Search | None = None,
) -> Drawing | None:
    """Draw one figure; None when there is nothing to draw yet."""
    if isinstance(figure, SearchFigure):
        if search is None:
            return None
        from ablate.results.figures.search import draw_search  # loads Optuna, which few reports need

        return draw_search(figure, results, search)
    if isinstance(figure, TableFigure):
        return _of_table(figure, tables[figure.table])
    if isinstance(figure, RowsFigure):
        return _of_rows(figure, results, next(table for table in layout.tables if table.name == figure.table))
    if isinstance(figure, ScatterLayout):
        correlation = next(one for one in layout.correlations if one.name == figure.correlation)
        return draw_scatter(figure, results, correlation)
    raise TypeError(f"no way to draw {figure!r}")


def _of_table(figure: TableFigure, table: Table) -> Drawing | None:
    match figure:
        case BarLayout():
            return draw_bars(figure, table)
        case RecipeLayout():
            return draw_recipe(figure, table)
        case DumbbellLayout():
            return draw_dumbbells(figure, table)
        case HeatmapLayout():
            return draw_heatmap(figure, table)
        case ScalingLayout():
            return draw_scaling(figure, table)
        case RadarLayout():
            return draw_radar(figure, table)
    raise TypeError(f"no way to draw {figure!r}")


def _of_rows(figure: RowsFigure, results: Results, table: TableLayout) -> Drawing | None:
    match figure:
        case CurveLayout():
            return draw_curves(figure, read_curves(results, figure, table))
        case FrontLayout():
            return draw_front(figure, read_front(results, figure, table))
        case TrainingLayout():
            return draw_training(figure, read_training(results, figure, table))
    raise TypeError(f"no way to draw {figure!r}")

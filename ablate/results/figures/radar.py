"""Radar charts: rows as polygons over columns of one unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from matplotlib.axes import Axes
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator

from ablate.errors import UsageError
from ablate.results.figures import style
from ablate.results.figures.numbers import column_indices, row_names, scaled, shown_rows
from ablate.results.figures.style import Drawing
from ablate.results.layout.figures import RadarLayout
from ablate.results.tables.table import Table


def draw_radar(layout: RadarLayout, table: Table) -> Drawing | None:
    """Draw the rows that have every number; the others are named in the caption. None while there are none."""
    indices = column_indices(layout, table)
    if len({(table.columns[index].unit, table.columns[index].scale) for index in indices}) > 1:
        raise UsageError(
            f"figure {layout.name!r}: the spokes of a radar need one unit", hint="name columns of one unit"
        )
    rows = shown_rows(table)
    values = [[scaled(table, row, index)[0] for index in indices] for row in rows]
    names = row_names(table, rows)
    whole = [(name, [value for value in own if value is not None]) for name, own in zip(names, values, strict=True)]
    drawn = [(name, own) for name, own in whole if len(own) == len(indices)]
    if not drawn:
        return None
    if len(drawn) > len(style.COLORS):
        raise UsageError(
            f"figure {layout.name!r}: {len(drawn)} rows are too many to tell apart on a radar",
            hint=f"draw a heatmap, or a table of at most {len(style.COLORS)} rows (`only`)",
        )
    figure = style.new_figure(style.COLUMN, 2.7, layout.title)
    axes = cast(PolarAxes, figure.add_subplot(projection="polar"))
    angles = [2 * math.pi * number / len(indices) for number in range(len(indices))]
    for number, (name, own) in enumerate(drawn):
        color, line = style.COLORS[number], style.LINES[number % len(style.LINES)]
        axes.plot([*angles, angles[0]], [*own, own[0]], color=color, linestyle=line, linewidth=1.1, label=name)
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_ylim(bottom=min(0.0, min(min(own) for _, own in drawn)))
    axes.set_rlabel_position(180 / len(indices))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=style.GRID, linewidth=0.5)
    axes.spines["polar"].set_color(style.GRID)
    axes.tick_params(axis="y", labelcolor=style.SOFT)
    _name_spokes(axes, angles, [style.plain(table.columns[index].label) for index in indices])
    style.add_legend(figure, axes)
    absent = [name for name, own in whole if len(own) < len(indices)]
    return Drawing(figure, (f"Not drawn, because a number is missing: {', '.join(absent)}.",) if absent else ())


def _name_spokes(axes: Axes, angles: Sequence[float], names: Sequence[str]) -> None:
    axes.set_xticks(angles, [style.wrapped(name, 0.8) for name in names])
    axes.tick_params(axis="x", pad=1)
    for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
        side = math.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")

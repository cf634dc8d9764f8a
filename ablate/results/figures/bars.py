"""Bars and dots: rows of a table, and the steps of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.errors import UsageError
from ablate.results.figures import style
from ablate.results.figures.numbers import (
    axis_label,
    column_indices,
    has_numbers,
    label_indices,
    row_names,
    row_text,
    scaled,
    shown_rows,
)
from ablate.results.figures.style import Drawing
from ablate.results.layout.figures import BarLayout, RecipeLayout, Step
from ablate.results.tables.table import Row, Table

_NARROWEST_BAR = 0.05
_LETTERS_OF_AN_ANGLE = 12


@dataclass(frozen=True)
class Bar:
    """One bar: the group that it stands in, its series, and its height; null where the number is missing."""

    group: int
    series: int
    value: float | None
    sd: float | None


def draw_bars(layout: BarLayout, table: Table) -> Drawing | None:
    """Draw a panel for each column; None while the table has no numbers."""
    indices = column_indices(layout, table)
    cells = [row for row in table.rows if row.kind == "cell"]
    if not has_numbers(cells, indices):
        return None
    groups, series = _names(table, cells)
    panels = 1 if len(indices) == 1 else 2
    room = ((style.COLUMN if len(indices) == 1 else style.PAGE) / panels - 0.6) / len(groups)
    names = [style.wrapped(name, room - 0.06) for name in groups]
    fits = (
        len(series) <= len(style.COLORS)
        and 0.8 * room / max(1, len(series)) >= _NARROWEST_BAR
        and all(len(word) * style.LETTER <= room - 0.06 for name in groups for word in name.split())
    )
    return Drawing(_panels_of_bars(layout, table, indices, names, series) if fits else dots(layout, table, indices))


def _names(table: Table, cells: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the names of the groups of bars and of the series: the first label, and the others."""
    labels = label_indices(table)
    groups = dict.fromkeys(row_text(row, labels[:1]) for row in cells)
    return list(groups), list(dict.fromkeys(row_text(row, labels[1:]) for row in cells))


def _panels_of_bars(
    layout: BarLayout, table: Table, indices: Sequence[int], names: Sequence[str], series: Sequence[str]
) -> Figure:
    labels, cells = label_indices(table), [row for row in table.rows if row.kind == "cell"]
    groups = _names(table, cells)[0]
    columns = 1 if len(indices) == 1 else 2
    lines = math.ceil(len(indices) / columns)
    width = style.COLUMN if len(indices) == 1 else style.PAGE
    figure = style.new_figure(width, 1.9 * lines, layout.title)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for index, axes in zip(indices, panels, strict=False):
        named = [(row, row_text(row, labels[:1]), row_text(row, labels[1:])) for row in cells]
        bars = [Bar(groups.index(group), series.index(own), *scaled(table, row, index)) for row, group, own in named]
        _bars(axes, bars, series, style.COLORS)
        for number, row in enumerate(row for row in table.rows if row.kind == "baseline"):
            value = scaled(table, row, index)[0]
            if value is not None:
                style.baseline_line(axes, value, number, row_text(row, labels[:1]))
        axes.set_xticks(range(len(groups)), names)
        axes.set_ylabel(axis_label(table, index))
    for unused in panels[len(indices) :]:
        unused.remove()
    style.add_legend(figure, panels[0])
    return figure


def _bars(axes: Axes, bars: Sequence[Bar], series: Sequence[str], colors: Sequence[str]) -> None:
    """Draw grouped bars from zero, so that their lengths compare; negative numbers hang from it."""
    width = 0.8 / max(1, len(series))
    named = set()
    for bar in bars:
        place = bar.group + (bar.series - (len(series) - 1) / 2) * width
        if bar.value is None:
            axes.annotate(
                "missing", (place, 0), (0, 2), textcoords="offset points", rotation=90, ha="center", color=style.SOFT
            )
            continue
        label = series[bar.series] if series[bar.series] and bar.series not in named else None
        named.add(bar.series)
        axes.bar(
            place, bar.value, width * 0.92, yerr=bar.sd, capsize=1.5, error_kw={"elinewidth": 0.8},
            color=colors[bar.series % len(colors)], label=label,
        )  # fmt: skip
    if all((bar.value or 0.0) >= 0 for bar in bars):
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(0, color=style.INK, linewidth=0.6)


def dots(layout: BarLayout, table: Table, indices: Sequence[int]) -> Figure:
    """One line a row, baselines first, under its full name: for what bars have no colours or no room for."""
    rows = shown_rows(table)
    names = [style.wrapped(name, 1.6) for name in row_names(table, rows)]
    used = style.longest_line(names)
    width = style.COLUMN if used + 0.3 + 1.2 * len(indices) <= style.COLUMN else style.PAGE
    lines = sum(map(line_size, names))
    figure = style.new_figure(width, 0.55 + 1.2 * style.LINE * lines, layout.title)
    panels = figure.subplots(1, len(indices), squeeze=False, sharey=True)[0]
    places = line_places(names)
    for index, axes in zip(indices, panels, strict=True):
        _dot_panel(axes, table, index, rows, places)
        room = (width - used - 0.3) / len(indices)
        axes.set_xlabel(style.wrapped(axis_label(table, index), room))
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(room / 0.45)), steps=[1, 2, 5, 10]))
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(places[-1] + 1.0, -1.0)
    return figure


def line_places(names: Sequence[str]) -> list[float]:
    """Return heights for names of one or more lines, so that none stands in another."""
    sizes = [line_size(name) for name in names]
    return [sum(sizes[:number]) + (size - 1) / 2 for number, size in enumerate(sizes)]


def line_size(name: str) -> float:
    """Return the height of a name of one or more lines, in names of one line."""
    return 1.0 + 0.8 * name.count("\n")


def _dot_panel(axes: Axes, table: Table, index: int, rows: Sequence[Row], places: Sequence[float]) -> None:
    baselines = 0
    for place, row in zip(places, rows, strict=True):
        value, sd = scaled(table, row, index)
        if value is None:
            where = axes.get_yaxis_transform()
            axes.text(0.01, place, "missing", transform=where, va="center", color=style.SOFT, backgroundcolor="#ffffff")
            continue
        color = style.INK if row.kind == "baseline" else style.COLORS[0]
        axes.errorbar(value, place, xerr=sd, fmt="o", color=color, markersize=3.5, elinewidth=0.8)
        if row.kind == "baseline":
            style.baseline_line(axes, value, baselines, "", vertical=True)
            baselines += 1
    axes.grid(axis="y", color=style.GRID, linewidth=0.5)
    axes.set_axisbelow(True)


def draw_recipe(layout: RecipeLayout, table: Table) -> Drawing | None:
    """Draw a group of bars for each column, one bar a step, from light to dark; None while no step has a number."""
    indices = column_indices(layout, table)
    rows = [_row_of(step, layout, table) for step in layout.steps]
    if not has_numbers(rows, indices):
        return None
    units = {(table.columns[index].unit, table.columns[index].scale) for index in indices}
    if len(units) > 1:
        raise UsageError(f"figure {layout.name!r}: its columns have different units", hint="draw one figure a unit")
    width = style.COLUMN if len(indices) * len(rows) <= 16 else style.PAGE
    figure = style.new_figure(width, 2.0, layout.title)
    axes = figure.subplots()
    bars = [
        Bar(group, series, *scaled(table, row, index))
        for group, index in enumerate(indices)
        for series, row in enumerate(rows)
    ]
    shades = matplotlib.colormaps["viridis_r"]
    last = max(1, len(rows) - 1)
    colors = [matplotlib.colors.to_hex(shades(0.05 + 0.9 * number / last)) for number in range(len(rows))]
    _bars(axes, bars, [style.plain(step.label) for step in layout.steps], colors)
    room = (width - 0.6) / len(indices) - 0.06
    names = [style.plain(table.columns[index].label) for index in indices]
    is_slanted = any(len(word) * style.LETTER > room for name in names for word in name.split())
    fitted = [style.wrapped(name, _LETTERS_OF_AN_ANGLE * style.LETTER if is_slanted else room) for name in names]
    axes.set_xticks(range(len(indices)), fitted, rotation=90 if is_slanted else 0)
    axes.set_ylabel("%" if units == {("proportion", 100.0)} else units.pop()[0].capitalize())
    style.add_legend(figure, axes)
    return Drawing(figure)


def _row_of(step: Step, layout: RecipeLayout, table: Table) -> Row:
    """Return the one row that has these values on these axes; raises :class:`UsageError` for none and for several."""
    rows = [
        row
        for row in shown_rows(table)
        if all(str(row.axes.get(axis)) == str(value) for axis, value in step.where.items())
        and ("baseline" in row.axes) == ("baseline" in step.where)
    ]
    if len(rows) == 1:
        return rows[0]
    names = "; ".join(row_text(row, label_indices(table)) for row in rows)
    raise UsageError(
        f"figure {layout.name!r}: step {step.label!r} is {f'{len(rows)} rows ({names})' if rows else 'no row'}"
        f" of table {table.name!r}",
        hint="name axes that a single row of the table has",
    )

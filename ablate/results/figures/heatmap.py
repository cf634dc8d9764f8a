"""Heat maps: rows by columns with every number in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from ablate.errors import UsageError
from ablate.results.figures import style
from ablate.results.figures.bars import line_places, line_size
from ablate.results.figures.numbers import column_indices, has_numbers, row_names, row_text, scaled
from ablate.results.figures.style import Drawing
from ablate.results.layout.figures import HeatmapLayout
from ablate.results.statistics.permutation import Floats
from ablate.results.tables.table import Row, Table, number_text

_DIVERGING = LinearSegmentedColormap.from_list("worse-better", [style.WORSE, "#ffffff", style.BETTER])
_SEQUENTIAL = LinearSegmentedColormap.from_list("low-high", ["#ffffff", style.BETTER])
_MISSING = "#eeeeee"


def draw_heatmap(layout: HeatmapLayout, table: Table) -> Drawing | None:
    """Draw the cells of the table; None while none has a number or the baseline to compare with has none."""
    indices = column_indices(layout, table)
    cells = [row for row in table.rows if row.kind == "cell"]
    rows = [row for row in table.rows if row.kind in ("heading", "baseline", "cell")]
    if not has_numbers(cells, indices):
        return None
    shade_RC, norm, colors = _shades(layout, table, cells, rows, indices)
    named = [row for row in rows if row.kind != "heading"]
    by_row = dict(zip(map(id, named), row_names(table, named), strict=True))
    full = [by_row.get(id(row), style.plain(row.cells[0].text or "")) for row in rows]
    texts = [[_text(table, row, index) for index in indices] for row in rows]
    cell_width = max(0.3, 0.08 + style.longest_line([text for row in texts for text in row]))
    names = [style.wrapped(name, 1.3) for name in full]
    width = style.COLUMN
    if style.longest_line(names) + 0.2 + cell_width * len(indices) > width:
        names, width = [style.wrapped(name, 2.4) for name in full], style.PAGE
    heads = [style.plain(table.columns[index].label) for index in indices]
    room = (width - style.longest_line(names) - 0.2) / len(indices)
    is_upright = any(len(word) * style.LETTER > room - 0.04 for head in heads for word in head.split())
    heads = [style.wrapped(head, 0.9 if is_upright else room - 0.04) for head in heads]
    head_height = style.longest_line(heads) if is_upright else style.LINE * max(head.count("\n") + 1 for head in heads)
    places = line_places(names)
    height = 0.15 + head_height + 1.25 * style.LINE * (places[-1] + 1) + (0.45 if layout.against else 0.0)
    figure = style.new_figure(width, height, layout.title)
    axes = figure.subplots()
    _cells(axes, shade_RC, places, names, texts, norm, colors)
    axes.set_xticks(range(len(indices)), heads, rotation=90 if is_upright else 0)
    axes.set_yticks(places, names)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.kind == "heading" else "normal")
    if layout.against is not None:
        bar = figure.colorbar(
            ScalarMappable(norm, colors), ax=axes, orientation="horizontal", fraction=0.05, aspect=40, pad=0.02
        )
        name = next(row_text(row, (0,)) for row in rows if row.axes.get("baseline") == layout.against)
        bar.set_label(f"difference from {name}")
    return Drawing(figure)


def _shades(
    layout: HeatmapLayout, table: Table, cells: Sequence[Row], rows: Sequence[Row], indices: Sequence[int]
) -> tuple[Floats, Normalize, Colormap]:
    """Return what colours rows by columns: the difference from a baseline, blue where it is better, or 0 to 1."""
    value_RC = np.array([[_number(table, row, index) for index in indices] for row in rows], dtype=float)
    sign_C = np.array([-1.0 if table.columns[index].higher_is_better is False else 1.0 for index in indices])
    if layout.against is None:
        is_cell = np.array([row.kind == "cell" for row in rows])
        low_C, high_C = _of_defined(np.min, value_RC[is_cell]), _of_defined(np.max, value_RC[is_cell])
        spread_C = np.where(high_C > low_C, high_C - low_C, 1.0)
        return (value_RC - low_C) / spread_C, Normalize(0.0, 1.0), _SEQUENTIAL
    if len({(table.columns[index].unit, table.columns[index].scale) for index in indices}) > 1:
        raise UsageError(
            f"figure {layout.name!r}: differences of different units have no common colours",
            hint="name columns of one unit, or leave out `against`",
        )
    level_RC = value_RC[[row.axes.get("baseline") == layout.against for row in rows]]
    if not len(level_RC):
        raise UsageError(f"figure {layout.name!r}: table {table.name!r} has no row of baseline {layout.against!r}")
    if len(level_RC) > 1:
        raise UsageError(f"figure {layout.name!r}: baseline {layout.against!r} has {len(level_RC)} rows: leave it out")
    shade_RC = (value_RC - level_RC[0]) * sign_C
    largest = float(np.nanmax(np.abs(shade_RC), initial=0.0, where=~np.isnan(shade_RC))) or 1.0
    return shade_RC, Normalize(-largest, largest), _DIVERGING


def _of_defined(extreme: Callable[[Floats], float], value_RC: Floats) -> Floats:
    columns = [column[~np.isnan(column)] for column in value_RC.T]
    return np.array([extreme(column) if column.size else 0.0 for column in columns])


def _number(table: Table, row: Row, index: int) -> float:
    value = None if row.kind == "heading" else scaled(table, row, index)[0]
    return float("nan") if value is None else value


def _text(table: Table, row: Row, index: int) -> str:
    if row.kind == "heading":
        return ""
    value = row.cells[index].value
    return "–" if value is None else number_text(value, table.columns[index])


def _cells(
    axes: Axes,
    shade_RC: Floats,
    places: Sequence[float],
    names: Sequence[str],
    texts: Sequence[Sequence[str]],
    norm: Normalize,
    colors: Colormap,
) -> None:
    for place, name, shades, row in zip(places, names, shade_RC, texts, strict=True):
        half = line_size(name) / 2
        for column, (shade, text) in enumerate(zip(shades, row, strict=True)):
            if not text:
                continue
            color = _MISSING if np.isnan(shade) else colors(norm(shade))
            axes.fill_between([column - 0.5, column + 0.5], place - half, place + half, color=color, linewidth=0)
            red, green, blue, _ = colors(norm(shade)) if not np.isnan(shade) else (1.0, 1.0, 1.0, 1.0)
            is_dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.6
            axes.text(column, place, text, ha="center", va="center", color="#ffffff" if is_dark else "#1a1a1a")
    axes.set_xlim(-0.5, shade_RC.shape[1] - 0.5)
    axes.set_ylim(places[-1] + line_size(names[-1]) / 2, places[0] - line_size(names[0]) / 2)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)

"""Dumbbells: the two numbers behind each difference of a table."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablate.results.figures import style
from ablate.results.figures.bars import line_places
from ablate.results.figures.numbers import (
    axis_label,
    column_indices,
    has_numbers,
    label_indices,
    row_names,
    scaled,
    shown_rows,
)
from ablate.results.figures.style import Drawing
from ablate.results.layout.figures import DumbbellLayout
from ablate.results.tables.table import Row, Table, number_text

Ends = tuple[Row, Row]
"""The row a difference is taken from, and the row that is taken off."""


def draw_dumbbells(layout: DumbbellLayout, table: Table) -> Drawing | None:
    """Draw one line for each difference row and a panel for each column; None while there are no differences."""
    indices = column_indices(layout, table)
    deltas = [row for row in table.rows if row.kind == "delta" and row.runs]
    if not has_numbers(deltas, indices):
        return None
    rows = {row.runs: row for row in shown_rows(table)}
    ends = [(rows[row.runs], rows[row.against]) for row in deltas]
    told = [
        index for index in label_indices(table)
        if any(row.cells[index].text != first.cells[index].text for row, (first, _) in zip(deltas, ends, strict=True))
    ]  # fmt: skip
    names = [style.wrapped(name, 1.4) for name in row_names(table, deltas, leave_out=told)]
    used, places = style.longest_line(names), line_places(names)
    width = style.COLUMN if used + 0.3 + 1.5 * len(indices) <= style.COLUMN else style.PAGE
    figure = style.new_figure(width, 0.55 + 1.5 * style.LINE * (places[-1] + 1), layout.title)
    panels = figure.subplots(1, len(indices), squeeze=False, sharey=True)[0]
    for index, axes in zip(indices, panels, strict=True):
        _panel(axes, table, index, list(zip(places, deltas, ends, strict=True)), told)
        room = (width - used - 0.3) / len(indices)
        axes.set_xlabel(style.wrapped(axis_label(table, index), room))
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(room / 0.5)), steps=[1, 2, 5, 10]))
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(places[-1] + 0.8, -0.8)
    style.add_legend(figure, panels[0])
    return Drawing(figure)


def _panel(axes: Axes, table: Table, index: int, lines: Sequence[tuple[float, Row, Ends]], told: Sequence[int]) -> None:
    series: dict[str, int] = {}
    for place, delta, ends in lines:
        numbers = [scaled(table, row, index) for row in ends]
        for row, (value, sd) in zip(ends, numbers, strict=True):
            name = style.plain(" ".join(row.cells[column].text or "" for column in told))
            label = name if name not in series else None
            number = series.setdefault(name, len(series)) % len(style.COLORS)
            if value is not None:
                axes.errorbar(
                    value, place, xerr=sd, fmt=style.MARKERS[number], color=style.COLORS[number], markersize=4,
                    elinewidth=0.6, label=label, linestyle="none",
                )  # fmt: skip
        (first, _), (second, _) = numbers
        if first is None or second is None:
            axes.text(0.01, place, "missing", transform=axes.get_yaxis_transform(), va="center", color=style.SOFT)
            continue
        mark = delta.cells[index].mark
        color = {"better": style.BETTER, "worse": style.WORSE, None: style.GRID}[mark]
        axes.plot([first, second], [place, place], color=color, linewidth=2.5, alpha=0.6 if mark else 1, zorder=1)
        difference = delta.cells[index].value
        if difference is not None:
            text = number_text(difference, table.columns[index], signed=True)
            axes.annotate(
                text, (1, place), (2, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                va="center", color=color if mark else style.SOFT, annotation_clip=False,
            )  # fmt: skip
    axes.grid(axis="y", color=style.GRID, linewidth=0.5)
    axes.set_axisbelow(True)

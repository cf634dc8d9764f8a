"""Lines: learning curves, training curves, fronts of reward over KL, numbers over the size of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ablate.results.figures import style
from ablate.results.figures.curves import Curve, Curves
from ablate.results.figures.numbers import (
    axis_label,
    column_indices,
    has_numbers,
    label_indices,
    row_text,
    scaled,
    shown_rows,
)
from ablate.results.figures.style import Drawing
from ablate.results.layout.figures import CurveLayout, FrontLayout, ScalingLayout, TrainingLayout
from ablate.results.tables.table import Row, Table

_MOST_IN_A_COLUMN = 10


def draw_curves(layout: CurveLayout, found: Curves) -> Drawing | None:
    """Draw learning curves over the levels of what has none; None when no run has a curve yet."""
    if not found.curves:
        return None
    entries = len(found.curves) + len(found.levels)
    width = style.COLUMN if entries <= _MOST_IN_A_COLUMN else style.PAGE
    figure = style.new_figure(width, 2.1, layout.title)
    axes = figure.subplots()
    for number, curve in enumerate(found.curves):
        _curve(axes, curve, number)
    others, baselines = len(found.curves), 0
    for level in found.levels:
        if level.is_baseline:
            style.baseline_line(axes, level.value, baselines, style.plain(level.label))
            baselines += 1
        else:
            color, line = _look(others)
            axes.axhline(level.value, color=color, linewidth=0.9, linestyle=line, label=style.plain(level.label))
            others += 1
    axes.set_xlabel({"steps": "Steps", "samples": "Samples of the policy", "labels": "Labels"}[layout.x])
    axes.set_ylabel(style.plain(layout.label or layout.y))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.add_legend(figure, axes)
    return Drawing(figure, found.remarks)


def _look(number: int) -> tuple[str, str]:
    """Return colour and line of the ``number``-th series: lines change when the colours begin again."""
    colors = len(style.COLORS)
    return style.COLORS[number % colors], style.LINES[number // colors % len(style.LINES)]


def _marker(number: int) -> str:
    """Return the marker of the ``number``-th series: another one with each colour when the colours begin again."""
    return style.MARKERS[(number + number // len(style.COLORS)) % len(style.MARKERS)]


def _curve(axes: Axes, curve: Curve, number: int) -> None:
    color, line = _look(number)
    x, mean = np.array(curve.x), np.array(curve.mean)
    axes.plot(x, mean, color=color, linestyle=line, label=style.plain(curve.label))
    if curve.sd is not None:
        sd = np.array(curve.sd)
        axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.15, linewidth=0)
    if curve.end is not None:
        axes.plot(x[-1:], [curve.end], marker="o", markersize=4, color=color, linestyle="none")


def draw_training(layout: TrainingLayout, found: Mapping[str, Curves]) -> Drawing | None:
    """Draw a panel for each value that is logged while models train; None when none has been."""
    if not any(own.curves for own in found.values()):
        return None
    columns = 1 if len(found) == 1 else 2
    lines = math.ceil(len(found) / columns)
    figure = style.new_figure(style.COLUMN if columns == 1 else style.PAGE, 1.9 * lines, layout.title)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    numbers: dict[str, int] = {}
    for axes, (y, own) in zip(panels, found.items(), strict=False):
        for curve in own.curves:
            _curve(axes, curve, numbers.setdefault(curve.label, len(numbers)))
        axes.set_xlabel("Steps")
        axes.set_ylabel(style.plain(y))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for unused in panels[len(found) :]:
        unused.remove()
    fullest = max(zip(panels, found.values(), strict=False), key=lambda pair: len(pair[1].curves))[0]
    style.add_legend(figure, fullest)
    return Drawing(figure)


def draw_front(layout: FrontLayout, found: Curves) -> Drawing | None:
    """Draw each row's path from the reference, its end, and the front that no logged mean is beyond."""
    if not found.curves:
        return None
    figure = style.new_figure(style.COLUMN, 2.1, layout.title)
    axes = figure.subplots()
    for number, curve in enumerate(found.curves):
        color, line = _look(number)
        axes.plot(curve.x, curve.mean, color=color, linestyle=line, linewidth=0.8, label=style.plain(curve.label))
        axes.plot(curve.x[-1:], curve.mean[-1:], marker="o", markersize=4, color=color, linestyle="none")
    x, y = pareto_front([(x, y) for curve in found.curves for x, y in zip(curve.x, curve.mean, strict=True)])
    axes.step(x, y, where="post", color=style.INK, linewidth=1.0, linestyle=":", label="Front")
    axes.set_xlabel("KL from the reference (nats a response)")
    axes.set_ylabel(style.plain(layout.label or layout.y))
    style.add_legend(figure, axes)
    return Drawing(figure, found.remarks)


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return x and y of the points that no other has a smaller or equal x and a larger y than, by x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return [x for x, _ in front], [y for _, y in front]


def draw_scaling(layout: ScalingLayout, table: Table) -> Drawing | None:
    """Draw a line for each setting of the other axes; rows without a value on the axis are levels."""
    indices = column_indices(layout, table)
    cells = [row for row in table.rows if row.kind == "cell"]
    if not has_numbers(cells, indices):
        return None
    place = table.column_index(layout.axis)
    on_axis = [row for row in cells if layout.axis in row.axes]
    texts = {str(row.axes[layout.axis]): style.plain(row.cells[place].text or "") for row in on_axis}
    positions = {name: layout.sizes.get(name, float(number)) for number, name in enumerate(texts)}
    panels = len(indices)
    figure = style.new_figure(style.COLUMN if panels == 1 else style.PAGE, 2.1, layout.title)
    axes_row = figure.subplots(1, panels, squeeze=False)[0]
    room = ((style.COLUMN if panels == 1 else style.PAGE) / panels - 0.7) / max(1, len(texts))
    for index, axes in zip(indices, axes_row, strict=True):
        _lines_over(axes, table, index, layout.axis, positions)
        _levels(axes, table, index, layout.axis)
        if layout.sizes:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(positions.values()), [style.wrapped(name, room) for name in texts.values()])
        axes.margins(x=0.12)
        axes.set_xlabel(style.plain(layout.label or table.columns[place].label))
        axes.set_ylabel(axis_label(table, index))
    style.add_legend(figure, axes_row[0])
    return Drawing(figure)


def _lines_over(axes: Axes, table: Table, index: int, axis: str, positions: Mapping[str, float]) -> None:
    series = _series(table, axis)
    for number, (name, rows) in enumerate(series.items()):
        read = [(positions[str(row.axes[axis])], *scaled(table, row, index)) for row in rows]
        points = sorted((x, y, math.nan if sd is None else sd) for x, y, sd in read if y is not None)
        if points:
            color, line = _look(number)
            axes.errorbar(
                [x for x, _, _ in points], [y for _, y, _ in points], yerr=[sd for _, _, sd in points],
                color=color, linestyle=line, marker=_marker(number), markersize=3.5,
                elinewidth=0.7, capsize=1.5, label=name or None,
            )  # fmt: skip


def _series(table: Table, axis: str) -> dict[str, list[Row]]:
    """Return the rows with a value on the axis, by what their other labels say."""
    others = [column for column in label_indices(table) if table.columns[column].key != axis]
    series: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.kind == "cell" and axis in row.axes:
            series.setdefault(row_text(row, others), []).append(row)
    return series


def _levels(axes: Axes, table: Table, index: int, axis: str) -> None:
    """Draw baselines, and in colours of their own the cells that have no value on the axis."""
    baselines, others = 0, len(_series(table, axis))
    for row in shown_rows(table):
        value, name = scaled(table, row, index)[0], row_text(row, label_indices(table))
        if value is None or (row.kind == "cell" and axis in row.axes):
            continue
        if row.kind == "baseline":
            style.baseline_line(axes, value, baselines, name)
            baselines += 1
        else:
            axes.axhline(value, color=_look(others)[0], linewidth=0.9, linestyle="--", label=name)
            others += 1

"""Scatters of reward models' numbers against one another and against those of the policies trained on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablate.results.figures import style
from ablate.results.figures.style import Drawing
from ablate.results.layout import CorrelationLayout, RowAxis
from ablate.results.layout.figures import ScatterLayout
from ablate.results.long import Results
from ablate.results.tables.columns import Measured, column_value, measured_columns
from ablate.results.tables.correlation import model_of, pearson
from ablate.results.tables.rows import value_label

_DATASET = RowAxis(axis="reward_model.dataset")


@dataclass(frozen=True)
class Point:
    """One cell, or one reward model: what it is called in the legend, and its two numbers."""

    series: str
    x: float
    y: float


def draw_scatter(layout: ScatterLayout, results: Results, correlation: CorrelationLayout) -> Drawing | None:
    """Draw a panel for each pair of quantities, coloured by preference data; None while no point has both numbers."""
    models = measured_columns(correlation.reward_model, "reward_model", results)
    policies = measured_columns(correlation.policy, "policy", results)
    pairs = [*itertools.combinations(models, 2), *itertools.product(models, policies)]
    panels = [(one, other, read_pairs(results, correlation, one, other, of_policies=other in policies))
              for one, other in pairs]  # fmt: skip
    if not any(points for _, _, points in panels):
        return None
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    width = style.COLUMN if len(panels) == 1 else style.PAGE
    figure = style.new_figure(width, (2.3 if len(panels) == 1 else 2.0) * lines, layout.title)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    names = list(dict.fromkeys(point.series for _, _, points in panels for point in points))
    for axes, (one, other, points) in zip(grid, panels, strict=False):
        _panel(axes, one, other, points, {name: number for number, name in enumerate(names)}, width / columns - 0.6)
    for unused in grid[len(panels) :]:
        unused.remove()
    fullest = max(zip(grid, panels, strict=False), key=lambda item: len({point.series for point in item[1][2]}))[0]
    style.add_legend(figure, fullest)
    return Drawing(figure)


def read_pairs(
    results: Results, correlation: CorrelationLayout, one: Measured, other: Measured, *, of_policies: bool
) -> list[Point]:
    """Return a point for each reward model, or for each cell trained on one, that has both numbers."""
    models = [subject for subject in results.subjects if subject.subject == "reward_model"]
    cells = [
        subject
        for subject in results.subjects
        if subject.subject == "policy" and subject.axes.get("algorithm") in correlation.algorithms
    ]
    pairs = [(cell, model_of(cell, models)) for cell in cells] if of_policies else [(model, model) for model in models]
    points = []
    for subject, model in pairs:
        if model is not None:
            x, y = column_value(results, model, one)[0], column_value(results, subject, other)[0]
            if x is not None and y is not None:
                name = value_label(results, _DATASET, model.axes.get("reward_model.dataset"))
                points.append(Point(style.plain(name), x * one.column.scale, y * other.column.scale))
    return points


def _panel(
    axes: Axes, one: Measured, other: Measured, points: Sequence[Point], numbers: Mapping[str, int], room: float
) -> None:
    for name, number in numbers.items():
        own = [point for point in points if point.series == name]
        if own:
            axes.plot(
                [point.x for point in own], [point.y for point in own], linestyle="none", markersize=3.5, alpha=0.85,
                marker=style.MARKERS[number // len(style.COLORS) % len(style.MARKERS)],
                color=style.COLORS[number % len(style.COLORS)], label=name or None,
            )  # fmt: skip
    r = pearson(np.array([point.x for point in points]), np.array([point.y for point in points]))
    told = "no r" if r is None else f"r = {r:.2f}".replace("-", "−")
    axes.set_title(f"{told}, n = {len(points)}", loc="left", fontsize=7)
    axes.set_xlabel(style.wrapped(_heading(one), room))
    axes.set_ylabel(style.wrapped(_heading(other), 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _heading(measured: Measured) -> str:
    return style.plain(measured.column.label + (" (%)" if measured.column.scale == 100.0 else ""))

"""Figures, drawn from the numbers of finished tables. This module loads matplotlib; import it only to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablate.context import replacing
from ablate.errors import UsageError, suggestion
from ablate.results.figures.curves import Curve, Curves
from ablate.results.layout import CurveLayout, FigureLayout
from ablate.results.tables.table import Row, Table

# Okabe and Ito's palette: told apart in the common kinds of colour blindness.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_LEGEND_COLUMNS = 4
_INCHES_A_LETTER, _INCHES_BETWEEN_SLANTED = 0.075, 0.4
_BASELINE_STYLES = ("--", ":", "-.")
_STYLE: dict[str, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}


def draw(layout: FigureLayout, table: Table, folder: Path) -> list[Path]:
    """Draw a figure as PDF and PNG into ``folder``; returns the files, none when the table has no numbers yet."""
    keys = layout.columns or (_default_column(table),)
    known = [column.key for column in table.columns if column.kind in ("number", "health")]
    for key in keys:
        if key not in known:
            raise UsageError(f"figure {layout.name!r}: unknown column {key!r}", hint=suggestion(key, known))
    indices = [table.column_index(key) for key in keys]
    if not any(row.kind == "cell" and row.cells[index].value is not None for row in table.rows for index in indices):
        return []
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = (_bars if _fit_bars(table, len(indices)) else _dots)(table, indices, layout.title)
        return _written(figure, layout.name, folder)


def draw_curves(layout: CurveLayout, found: Curves, folder: Path) -> list[Path]:
    """Draw learning curves as PDF and PNG into ``folder``; returns the files, none when no run has a curve yet."""
    if not found.curves:
        return []
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        entries = len(found.curves) + len(found.levels)
        figure = Figure(figsize=(4.6, 2.6 + 0.2 * math.ceil(entries / 2)), layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(found.curves):
            _curve(axes, curve, _COLORS[number % len(_COLORS)], ("-", "--", ":")[number // len(_COLORS) % 3])
        others = iter(_COLORS[len(found.curves) % len(_COLORS) :] + _COLORS)
        for number, level in enumerate(found.levels):
            color = "#444444" if level.is_baseline else next(others)
            style = _BASELINE_STYLES[number % len(_BASELINE_STYLES)]
            axes.axhline(level.value, color=color, linewidth=0.9, linestyle=style, label=_plain(level.label))
        axes.set_xlabel({"steps": "Steps", "samples": "Samples of the policy", "labels": "Labels"}[layout.x])
        axes.set_ylabel(_plain(layout.label or layout.y))
        axes.set_title(_plain(layout.title), loc="left")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
        return _written(figure, layout.name, folder)


def _curve(axes: Axes, curve: Curve, color: str, style: str) -> None:
    x, mean = np.array(curve.x), np.array(curve.mean)
    axes.plot(x, mean, color=color, linewidth=1.2, linestyle=style, label=_plain(curve.label))
    if curve.sd is not None:
        sd = np.array(curve.sd)
        axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.2, linewidth=0)
    if curve.end is not None:
        axes.plot(x[-1:], [curve.end], marker="o", markersize=4, color=color, linestyle="none")


def _written(figure: Figure, name: str, folder: Path) -> list[Path]:
    FigureCanvasAgg(figure)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.pdf", folder / f"{name}.png"]
    # No creation date: drawing the same numbers again gives the same bytes.
    _save(figure, files[0], metadata={"CreationDate": None})
    _save(figure, files[1], dpi=200)
    return files


def _plain(text: str) -> str:
    # matplotlib reads dollar signs as the borders of mathematics
    return text.replace("$", r"\$")


def _save(figure: Figure, file: Path, **options: Any) -> None:
    with replacing(file) as temporary:
        figure.savefig(temporary, format=file.suffix[1:], bbox_inches="tight", **options)


def _default_column(table: Table) -> str:
    numbers = [column.key for column in table.columns if column.kind == "number"]
    return next((key for key in numbers if key.startswith("average")), numbers[-1])


def _fit_bars(table: Table, panels: int) -> bool:
    """Whether there are colours for all series of bars, and room for the names under them."""
    groups, series = _names(table)
    if len(series) > len(_COLORS):
        return False
    longest, room = max(map(len, groups)), _width(groups, series, panels) / panels / len(groups)
    return longest * _INCHES_A_LETTER <= room or room >= _INCHES_BETWEEN_SLANTED


def _names(table: Table) -> tuple[list[str], list[str]]:
    """Return the names of the groups of bars and of the series: the first label, and the others."""
    labels, cells = _labels(table), [row for row in table.rows if row.kind == "cell"]
    groups = dict.fromkeys(_text(row, labels[:1]) for row in cells)
    return list(groups), list(dict.fromkeys(_text(row, labels[1:]) for row in cells))


def _width(groups: Sequence[str], series: Sequence[str], panels: int) -> float:
    """Return the width of a figure of bars in inches."""
    return min(max(3.3, 0.9 + 0.28 * len(groups) * max(1, len(series))) * panels, 12.0)


def _labels(table: Table) -> list[int]:
    return [index for index, column in enumerate(table.columns) if column.kind == "label"]


def _bars(table: Table, indices: Sequence[int], title: str) -> Figure:
    labels = _labels(table)
    cells = [row for row in table.rows if row.kind == "cell"]
    groups, series = _names(table)
    entries = len(series) + sum(row.kind == "baseline" for row in table.rows)
    height = 2.4 + 0.2 * math.ceil(entries / _LEGEND_COLUMNS)
    figure = Figure(figsize=(_width(groups, series, len(indices)), height), layout="constrained")
    axes = figure.subplots(1, len(indices), squeeze=False)[0]
    for position, (index, one) in enumerate(zip(indices, axes, strict=True)):
        _panel(one, table, index, cells, (groups, series), labels)
        one.set_title(table.columns[index].label if len(indices) > 1 else title, loc="left")
        one.set_ylabel(_axis_label(table, index) if position == 0 or len(indices) == 1 else "")
    handles, names = axes[0].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, loc="outside lower center", ncols=min(_LEGEND_COLUMNS, len(names)), frameon=False)
    return figure


def _panel(
    axes: Axes, table: Table, index: int, cells: Sequence[Row], names: tuple[list[str], list[str]], labels: list[int]
) -> None:
    groups, series = names
    scale = table.columns[index].scale
    bar_width = 0.8 / max(1, len(series))
    for row in cells:
        cell = row.cells[index]
        one = series.index(_text(row, labels[1:]))
        place = groups.index(_text(row, labels[:1])) + (one - (len(series) - 1) / 2) * bar_width
        if cell.value is None:
            gap: dict[str, Any] = {"textcoords": "offset points", "rotation": 90, "ha": "center", "color": "#777777"}
            axes.annotate("missing", (place, 0), (0, 2), **gap)
            continue
        error = None if cell.sd is None else cell.sd * scale
        known = axes.get_legend_handles_labels()[1]
        axes.bar(
            place, cell.value * scale, bar_width * 0.92, yerr=error, capsize=2, error_kw={"elinewidth": 0.8},
            color=_COLORS[one % len(_COLORS)], label=series[one] if series[one] and series[one] not in known else None,
        )  # fmt: skip
    baselines = [row for row in table.rows if row.kind == "baseline" and row.cells[index].value is not None]
    for number, row in enumerate(baselines):
        value = row.cells[index].value or 0.0
        style = _BASELINE_STYLES[number % len(_BASELINE_STYLES)]
        axes.axhline(value * scale, color="#444444", linewidth=0.9, linestyle=style, label=_text(row, labels[:1]))
    axes.set_xticks(range(len(groups)), groups)
    if max((len(name) for name in groups), default=0) * len(groups) > 40:
        axes.tick_params(axis="x", rotation=20)
    _limits(axes, [row.cells[index].value or 0.0 for row in [*cells, *baselines]])


def _dots(table: Table, indices: Sequence[int], title: str) -> Figure:
    """One line a row, baselines first, under its full name: for what bars have no colours or no room for."""
    rows = [row for row in table.rows if row.kind in ("baseline", "cell")]
    names = _row_names(table, rows)
    width = 0.4 + 0.062 * max(len(name) for name in names) + 3.0 * len(indices)
    figure = Figure(figsize=(width, 0.8 + 0.17 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(indices), squeeze=False, sharey=True)[0]
    for index, axes in zip(indices, panels, strict=True):
        _dot_panel(axes, table, index, rows)
        axes.set_xlabel(_axis_label(table, index))
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    # The title begins over the names, so that a long one has the figure's whole width.
    figure.suptitle(_plain(title), x=0.01, ha="left", fontsize="medium", wrap=True)
    return figure


def _dot_panel(axes: Axes, table: Table, index: int, rows: Sequence[Row]) -> None:
    scale, baselines = table.columns[index].scale, 0
    for place, row in enumerate(rows):
        cell, is_baseline = row.cells[index], row.kind == "baseline"
        color = "#444444" if is_baseline else _COLORS[0]
        if cell.value is None:
            where = axes.get_yaxis_transform()
            axes.text(0.01, place, "missing", transform=where, va="center", fontsize="small", color="#777777")
            continue
        error = None if cell.sd is None else cell.sd * scale
        axes.errorbar(cell.value * scale, place, xerr=error, fmt="o", color=color, markersize=3.5, elinewidth=0.8)
        if is_baseline:
            style = _BASELINE_STYLES[baselines % len(_BASELINE_STYLES)]
            axes.axvline(cell.value * scale, color=color, linewidth=0.9, linestyle=style)
            baselines += 1
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _row_names(table: Table, rows: Sequence[Row]) -> list[str]:
    """Each row's labels, numbers with their column's heading; what all cells share is left out."""
    cells = [row for row in rows if row.kind == "cell"]
    telling = [index for index in _labels(table) if len({row.cells[index].text for row in cells}) > 1]
    names = []
    for row in rows:
        shown = _labels(table) if row.kind == "baseline" else telling
        parts = [(table.columns[index].label, row.cells[index].text or "") for index in shown]
        texts = [f"{label} {text}" if _is_number(text) else text for label, text in parts if text]
        names.append(_plain(", ".join(texts)))
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _limits(axes: Axes, values: Sequence[float]) -> None:
    """Bars start at zero, so that their lengths compare; negative rewards hang from it."""
    if min(values) >= 0:
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(0, color="#444444", linewidth=0.6)


def _axis_label(table: Table, index: int) -> str:
    column = table.columns[index]
    unit = " (%)" if column.scale == 100.0 else ""
    has_sd = any(row.cells[index].sd is not None for row in table.rows if row.kind == "cell")
    return f"{column.label}{unit}" + (", mean ± sd" if has_sd else "")


def _text(row: Row, labels: Sequence[int]) -> str:
    return _plain(" ".join(text for index in labels if (text := row.cells[index].text)))

"""Figures of an audit as SVG text. This module loads matplotlib; import it only to draw."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ablate.data.audit.findings import Bars, Drawing, Histogram

# Okabe and Ito's palette: told apart in the common kinds of colour blindness.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MOST_UPRIGHT = 60  # characters of all labels together


def svg(drawing: Drawing, salt: str) -> str:
    """Return a figure as an ``<svg>`` element, the same for equal input; ``salt`` keeps the ids of figures apart."""
    style: dict[str, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        height = 0.9 + 0.24 * len(drawing.labels) if isinstance(drawing, Bars) and _lies(drawing) else 2.8
        figure = Figure(figsize=(6.4, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        if isinstance(drawing, Histogram):
            _histogram(axes, drawing)
        else:
            _bars(axes, drawing)
        axes.set_title(drawing.title.replace("$", r"\$"), loc="left", fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _histogram(axes: Axes, drawing: Histogram) -> None:
    for color, (name, counts) in zip(_COLORS, drawing.counts.items(), strict=False):
        axes.stairs(counts, drawing.edges, color=color, label=f"{name} (n = {sum(counts):,})", linewidth=1.2)
    beyond = f"; {drawing.beyond:,} larger values are not shown" if drawing.beyond else ""
    axes.set_xlabel(f"{drawing.unit}{beyond}")
    axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(bottom=0)


def _bars(axes: Axes, drawing: Bars) -> None:
    """Draw upright bars, or lying ones where the labels are long."""
    places = np.arange(len(drawing.labels))
    width = 0.8 / len(drawing.values)
    lying = _lies(drawing)
    for number, (name, values) in enumerate(drawing.values.items()):
        offset = (number - (len(drawing.values) - 1) / 2) * width
        style: dict[str, Any] = {"color": _COLORS[number % len(_COLORS)], "label": name}
        if lying:
            axes.barh(places + offset, values, width * 0.92, **style)
        else:
            axes.bar(places + offset, values, width * 0.92, **style)
    labels = [label.replace("$", r"\$") for label in drawing.labels]
    if lying:
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlabel(drawing.unit)
    else:
        axes.set_xticks(places, labels)
        axes.set_ylabel(drawing.unit)
    if len(drawing.values) > 1:
        axes.legend(frameon=False, fontsize=8)


def _lies(drawing: Drawing) -> bool:
    return isinstance(drawing, Bars) and sum(len(label) for label in drawing.labels) > _MOST_UPRIGHT

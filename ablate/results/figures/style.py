"""What all figures share: sizes of a paper's column, fonts, colours, legends, names that fit. Loads matplotlib."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablate.context import replacing

# Okabe and Ito's palette: told apart in the common kinds of colour blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
BETTER, WORSE, INK, SOFT, GRID = COLORS[0], COLORS[5], "#444444", "#777777", "#dddddd"
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

COLUMN, PAGE = 3.25, 6.75
"""Inches: the width of one column of a paper, and of two."""

LETTER = 0.058
"""Inches that a letter of the smallest font takes."""

LINE = 0.135
"""Inches between lines of the smallest font."""

_REM_AN_INCH = 8
"""On a page a figure is larger than on paper."""

_SMALLEST = 7.0
STYLE: dict[str, Any] = {
    "font.size": _SMALLEST, "axes.titlesize": 8, "figure.titlesize": 8, "axes.labelsize": _SMALLEST,
    "xtick.labelsize": _SMALLEST, "ytick.labelsize": _SMALLEST, "legend.fontsize": _SMALLEST,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.handlelength": 1.6, "pdf.fonttype": 42,
    "axes.unicode_minus": True,
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A figure, and what its caption must say of what is not in it."""

    figure: Figure
    remarks: tuple[str, ...] = ()


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of this size in inches; the title takes as many lines as it needs, beside the height."""
    lines = wrapped(plain(title), width - 0.1, LETTER * 8 / _SMALLEST).split("\n") if title else []
    figure = Figure(figsize=(width, height + 0.16 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    if lines:
        figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes`` below everything, in as many columns as the width holds; the figure grows by it."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    width, height = figure.get_size_inches()
    rows = [wrapped(name, width - 0.5) for name in names]
    widest = max(len(line) for row in rows for line in row.split("\n"))
    columns = max(1, min(len(rows), int(width / ((widest + 5) * LETTER))))
    tallest = max(row.count("\n") + 1 for row in rows)
    figure.set_size_inches(width, height + 0.1 + (LINE + 0.02) * tallest * math.ceil(len(rows) / columns))
    figure.legend(handles, rows, loc="outside lower center", ncols=columns, frameon=False)


def baseline_line(axes: Axes, value: float, number: int, label: str, *, vertical: bool = False) -> None:
    """Draw the ``number``-th baseline as a thin broken line over the whole panel."""
    draw = axes.axvline if vertical else axes.axhline
    draw(value, color=INK, linewidth=0.9, linestyle=LINES[1:][number % 3], label=label)


def wrapped(text: str, inches: float, letter: float = LETTER) -> str:
    """Break ``text`` into lines of at most this width; a longer word is broken too."""
    return "\n".join(textwrap.wrap(text, max(4, int(inches / letter)), break_on_hyphens=False)) or text


def longest_line(texts: Sequence[str]) -> float:
    """Return the inches that the longest line of ``texts`` takes."""
    return LETTER * max((len(line) for text in texts for line in text.split("\n")), default=0)


def plain(text: str) -> str:
    """Escape dollar signs, which matplotlib reads as the borders of mathematics."""
    return text.replace("$", r"\$")


def write(figure: Figure, name: str, folder: Path) -> list[Path]:
    """Write the figure as PDF and PNG; drawing the same numbers again gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.pdf", folder / f"{name}.png"]
    _save(figure, files[0], metadata={"CreationDate": None})
    _save(figure, files[1], dpi=200)
    return files


def _save(figure: Figure, file: Path, **options: Any) -> None:
    with replacing(file) as temporary:
        figure.savefig(temporary, format=file.suffix[1:], **options)


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as an ``<svg>`` element whose ids are of this name: several can stand in one page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    width = f'style="width: {_REM_AN_INCH * figure.get_figwidth():g}rem"'
    start = text.index("<svg")
    end = text.index(">", start)
    return re.sub(r'width="\S+" height="\S+"', width, text[start:end]) + text[end:]

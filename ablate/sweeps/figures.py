"""The figures of a sweep without a report. Loads matplotlib."""

from __future__ import annotations

from pathlib import Path

from ablate.results.figures.draw import Drawn, draw_figures
from ablate.results.layout import Layout
from ablate.results.layout.figures import search_figures
from ablate.results.long import collect
from ablate.store import Store
from ablate.sweeps.show import Found
from ablate.trials import read_search


def write_figures(found: Found, store: Store, folder: Path) -> list[Drawn]:
    """Draw the figures that a sweep has by default, as PDF and PNG; none while no trial is complete."""
    results = collect(store, found.name)
    layout = Layout(trials=True, figures=search_figures(found.sweep.facts()))
    return draw_figures(results, layout, (), folder, read_search(store, found.name))

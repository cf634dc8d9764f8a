"""ablate: one YAML question about preference tuning, one paper-ready table that answers it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"


def load(name: str, store: str | Path = "store") -> pd.DataFrame:
    """Return an experiment's long table: one row per subject, suite, task and metric."""
    long, layout = importlib.import_module("ablate.results.long"), importlib.import_module("ablate.store")
    table: pd.DataFrame = long.collect(layout.Store(Path(store)), name).table()
    return table

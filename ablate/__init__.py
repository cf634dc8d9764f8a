"""ablate: one YAML question about preference tuning, one paper-ready table that answers it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"


def load(name: str, store: str | Path = "store") -> pd.DataFrame:
    """Return an experiment's long table: one row per subject, suite, task and metric.

    The columns are those of :meth:`ablate.results.long.Results.arrow`. Raises
    :class:`ablate.errors.UnknownNameError` for an experiment that was never planned in this store.
    """
    cache, long = importlib.import_module("ablate.results.cache"), importlib.import_module("ablate.results.long")
    place = importlib.import_module("ablate.store").Store(Path(store))
    table: pd.DataFrame = long.data_frame(cache.long_table(place, name))
    return table

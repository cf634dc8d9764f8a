"""The long table as a file or as text, for notebooks and other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ablate.errors import UnknownNameError, UsageError
from ablate.results.long import collect
from ablate.store import Store

FORMATS = ("csv", "json", "parquet")


def export(store: Store, experiment: str, form: str, to: Path | None) -> str | None:
    """Write the long table to ``to``, or return it as text when there is no file; parquet needs a file."""
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    table = collect(store, experiment).table()
    if form == "parquet":
        if to is None:
            raise UsageError("parquet is no text", hint="name a file: --out results.parquet")
        temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
        table.to_parquet(temporary, index=False)
        os.replace(temporary, to)
        return None
    text = _as_csv(table) if form == "csv" else _as_json(table)
    if to is None:
        return text
    to.write_text(text, encoding="utf-8")
    return None


def _as_csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _as_json(table: pd.DataFrame) -> str:
    return f"{table.to_json(orient='records', indent=1)}\n"

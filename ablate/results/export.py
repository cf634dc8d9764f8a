"""The long table as a file or as text, for notebooks and other programs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet

from ablate.context import replacing, write_text
from ablate.errors import UnknownNameError, UsageError
from ablate.results.cache import long_table
from ablate.results.long import data_frame
from ablate.store import Store

FORMATS = ("csv", "json", "parquet")


def export(store: Store, experiment: str, form: str | None, to: Path | None) -> str | None:
    """Write the long table to ``to``, or return it as text when there is no file; parquet needs a file.

    Without ``form`` the file's suffix says it; the two may not disagree. Text is CSV where neither says anything.
    """
    form = _format(form, to)
    table = long_table(store, experiment)
    if form == "parquet":
        if to is None:
            raise UsageError("parquet is no text", hint="name a file: --out results.parquet")
        with replacing(to) as temporary:
            parquet.write_table(table, temporary)
        return None
    frame = data_frame(table)
    text = _as_csv(frame) if form == "csv" else _as_json(frame)
    if to is None:
        return text
    write_text(to, text)
    return None


def _format(form: str | None, to: Path | None) -> str:
    if form is not None and form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    suffix = "" if to is None else to.suffix.lower().removeprefix(".")
    if form is not None and suffix in FORMATS and suffix != form:
        raise UsageError(f"format {form} does not go into {to}", hint=f"leave --format out, or name a .{form} file")
    if form is None and suffix and suffix not in FORMATS:
        raise UsageError(f"{to} says no format", hint=f"name a file in {', '.join(FORMATS)}, or give --format")
    return form or suffix or "csv"


def _as_csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _as_json(table: pd.DataFrame) -> str:
    return f"{table.to_json(orient='records', indent=1)}\n"

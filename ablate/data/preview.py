"""The first rows of a set as its converter makes them, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry
from ablate.data.converters import grouping
from ablate.data.entry_rows import entry_rows
from ablate.data.examples import maker
from ablate.data.grouping import at_unit, together_by_file
from ablate.data.records import Dropped
from ablate.data.refine import reader
from ablate.errors import DataError


def preview(entry: DatasetEntry, root: Path | None, count: int) -> list[dict[str, Any]]:
    """Return what became of the first ``count`` rows (or groups of rows): their examples, or why they are dropped.

    The entry's pairing is applied; its split is not, nor is it cut to another set's prompts. A missing file is a
    DataError that says what to put where.
    """
    if entry.converter is None:
        return []
    read = reader(entry.stage_config())
    make = maker(entry.format, entry.pairing)
    key_of = grouping(entry.converter, entry.converter_options)
    found: list[dict[str, Any]] = []
    for unit in together_by_file(entry_rows(entry, root), key_of):
        if len(found) == count:
            break
        try:
            converted = read.convert(unit.file.name, unit.row)
            made = converted if isinstance(converted, Dropped) else make(converted)
        except DataError as error:
            raise at_unit(unit, error) from error
        place = {"file": unit.file.name, "row": unit.number, "rows": unit.size}
        if isinstance(made, Dropped):
            found.append({**place, "dropped": made.reason})
        else:
            found.append({**place, "examples": [example.value for example in made]})
    return found

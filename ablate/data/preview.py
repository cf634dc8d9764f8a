"""The first rows of a set as its converter makes them, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.data.converters import bind, grouping
from ablate.data.examples import maker
from ablate.data.grouping import at_unit, numbered, together
from ablate.data.records import Dropped
from ablate.data.sources import DataFile
from ablate.errors import DataError


def preview(entry: DatasetEntry, root: Path | None, count: int) -> list[dict[str, Any]]:
    """Return what became of the first ``count`` rows (or groups of rows): their examples, or why they are dropped.

    The entry's pairing is applied, its split is not. A missing file is a DataError that says what to put where.
    """
    if entry.converter is None:
        return []
    files = [DataFile(name, path) for name, path in sorted(data_files(entry, root).items())]
    convert = bind(entry.converter, entry.converter_options)
    make = maker(entry.format, entry.pairing)
    found: list[dict[str, Any]] = []
    for unit in together(numbered(files), grouping(entry.converter, entry.converter_options)):
        if len(found) == count:
            break
        try:
            converted = convert(unit.file.name, unit.row)
            made = converted if isinstance(converted, Dropped) else make(converted)
        except DataError as error:
            raise at_unit(unit, error) from error
        place = {"file": unit.file.name, "row": unit.number, "rows": unit.size}
        if isinstance(made, Dropped):
            found.append({**place, "dropped": made.reason})
        else:
            found.append({**place, "examples": [example.value for example in made]})
    return found

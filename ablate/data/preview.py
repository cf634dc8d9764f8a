"""The first rows of a set as its converter makes them, for the command line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.data.converters import grouping
from ablate.data.examples import maker
from ablate.data.grouping import numbered, together
from ablate.data.records import Dropped
from ablate.data.refine import reader
from ablate.data.sources import DataFile


def preview(entry: DatasetEntry, root: Path | None, count: int) -> list[dict[str, Any]]:
    """Return what became of the first ``count`` rows (or groups of rows): their examples, or why they are dropped.

    The entry's pairing is applied, its split is not. A missing file is a DataError that says what to put where.
    """
    if entry.converter is None:
        return []
    files = [DataFile(name, path) for name, path in sorted(data_files(entry, root).items())]
    config = entry.stage_config()
    read = reader(entry.converter, entry.converter_options, where=config.get("where"), label=config.get("label"))
    make = maker(entry.format, entry.pairing)
    found: list[dict[str, Any]] = []
    key_of = grouping(entry.converter, entry.converter_options)
    for unit in itertools.chain.from_iterable(together(numbered(file), key_of) for file in files):
        if len(found) == count:
            break
        converted = read.convert(unit.file.name, unit.row)
        made = converted if isinstance(converted, Dropped) else make(converted)
        place = {"file": unit.file.name, "row": unit.number, "rows": unit.size}
        if isinstance(made, Dropped):
            found.append({**place, "dropped": made.reason})
        else:
            found.append({**place, "examples": [example.value for example in made]})
    return found

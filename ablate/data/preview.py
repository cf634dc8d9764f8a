"""The first rows of a set as its converter makes them, for the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.data.converters import bind, grouping
from ablate.data.examples import maker
from ablate.data.grouping import Unit, at_unit, numbered, together
from ablate.data.records import Dropped
from ablate.data.sources import DataFile
from ablate.errors import DataError
from ablate.pocket.stage import read_config, rows


def preview(entry: DatasetEntry, root: Path | None, count: int) -> list[dict[str, Any]]:
    """Return what became of the first ``count`` rows (or groups of rows): their examples, or why they are dropped.

    The entry's pairing is applied; its split is not, nor is it cut to another set's prompts. A missing file is a
    DataError that says what to put where.
    """
    if entry.converter is None:
        return []
    convert = bind(entry.converter, entry.converter_options)
    make = maker(entry.format, entry.pairing)
    found: list[dict[str, Any]] = []
    for unit in together(_units(entry, root), grouping(entry.converter, entry.converter_options)):
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


def _units(entry: DatasetEntry, root: Path | None) -> Iterator[Unit]:
    config = entry.pocket_config()
    if config is None:
        return numbered(DataFile(name, path) for name, path in sorted(data_files(entry, root).items()))
    file = DataFile(f"{config['split']}.jsonl", Path("pocket"))
    return (
        Unit(file, index, index + 1, json.loads(json.dumps(row))) for index, row in enumerate(rows(read_config(config)))
    )

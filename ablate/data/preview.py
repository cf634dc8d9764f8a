"""The first rows of a set as its converter makes them, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, data_files
from ablate.data.converters import bind, grouping
from ablate.data.examples import maker
from ablate.data.grouping import Unit, numbered, together
from ablate.data.records import Dropped
from ablate.data.sources import DataFile
from ablate.pocket.stage import read_config, rows


def preview(entry: DatasetEntry, root: Path | None, count: int) -> list[dict[str, Any]]:
    """Return what became of the first ``count`` rows (or groups of rows): their examples, or why they are dropped.

    The entry's pairing is applied, its split is not. Rows of the pocket world are made as they are read. A missing file
    is a DataError that says what to put where.
    """
    if entry.converter is None:
        return []
    convert = bind(entry.converter, entry.converter_options)
    make = maker(entry.format, entry.pairing)
    found: list[dict[str, Any]] = []
    for unit in together(_units(entry, root), grouping(entry.converter, entry.converter_options)):
        if len(found) == count:
            break
        converted = convert(unit.file.name, unit.row)
        made = converted if isinstance(converted, Dropped) else make(converted)
        place = {"file": unit.file.name, "row": unit.number, "rows": unit.size}
        if isinstance(made, Dropped):
            found.append({**place, "dropped": made.reason})
        else:
            found.append({**place, "examples": [example.value for example in made]})
    return found


def _units(entry: DatasetEntry, root: Path | None) -> Iterator[Unit]:
    config = entry.pocket_config()
    if config is None:
        yield from numbered(DataFile(name, path) for name, path in sorted(data_files(entry, root).items()))
        return
    file = DataFile(f"{config['split']}.jsonl", Path(f"{config['split']}.jsonl"))
    for position, row in enumerate(rows(read_config(config))):
        yield Unit(file, position, position + 1, row)

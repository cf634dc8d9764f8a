"""The rows of data files as a converter reads them: one by one, or those of one key together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ablate.data.converters import GroupKey
from ablate.data.records import Row
from ablate.data.sources import DataFile, Meter, read_rows
from ablate.errors import DataError


@dataclass(frozen=True, slots=True)
class Unit:
    """What one call of a converter gets: a row, or the ``rows`` of a group under that name.

    ``position`` counts rows over all files and ``number`` (from 1) in the file; both are those of the first row.
    """

    file: DataFile
    position: int
    number: int
    row: Row
    size: int = 1
    grouped: bool = False


def at_unit(unit: Unit, error: DataError) -> DataError:
    """Return the error with the file and the row that it is about."""
    return DataError(f"{unit.file.path}, row {unit.number}: {error.message}", hint=error.hint)


@dataclass(slots=True)
class _Group:
    position: int
    number: int
    rows: list[Row] = field(default_factory=list)


def numbered(file: DataFile, before: int = 0, meter: Meter | None = None) -> Iterator[Unit]:
    """Yield every row of a file; ``before`` rows are in the files before it."""
    for number, row in read_rows(file, meter):
        yield Unit(file, before + number - 1, number, row)


def all_rows(files: Iterable[DataFile], meter: Meter | None = None) -> Iterator[Unit]:
    """Yield every row of the files, in their order."""
    count = 0
    for file in files:
        before = count
        for unit in numbered(file, before, meter):
            count = unit.position + 1
            yield unit
        if meter:
            meter.finish(file)


def together(units: Iterable[Unit], key_of: GroupKey | None) -> Iterator[Unit]:
    """Yield the units of one row with those of a group made one, in the order of the groups' first rows.

    ``units`` are the rows of one file: a group never spans files. Its groups are held in memory until it ends;
    without ``key_of``, and for rows without a key, nothing is held.
    """
    if key_of is None:
        yield from units
        return
    groups: dict[str, _Group] = {}
    file: DataFile | None = None
    for unit in units:
        file = unit.file
        key = key_of(file.name, unit.row)
        if key is None:
            yield unit
        else:
            groups.setdefault(key, _Group(unit.position, unit.number)).rows.append(unit.row)
    for group in groups.values():
        assert file is not None
        yield Unit(file, group.position, group.number, {"rows": group.rows}, len(group.rows), grouped=True)


def together_by_file(units: Iterable[Unit], key_of: GroupKey | None) -> Iterator[Unit]:
    """Yield the rows of several files, one after another, with those of a group of a file made one."""
    for _, own in itertools.groupby(units, key=lambda unit: unit.file):
        yield from together(own, key_of)

"""The rows of data files as a converter reads them: one by one, or those of one key together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ablate.data.converters import GroupKey
from ablate.data.records import Row
from ablate.data.sources import DataFile, read_rows
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


def numbered(files: Iterable[DataFile]) -> Iterator[Unit]:
    """Yield every row of the files, in their order."""
    position = 0
    for file in files:
        for number, row in read_rows(file):
            yield Unit(file, position, number, row)
            position += 1


def together(units: Iterable[Unit], key_of: GroupKey | None) -> Iterator[Unit]:
    """Yield the units of one row with those of a group made one, in the order of the groups' first rows.

    A group never spans files. The groups of a file are held in memory until the file ends; without ``key_of``, and
    for rows without a key, nothing is held.
    """
    if key_of is None:
        yield from units
        return
    groups: dict[str, _Group] = {}
    current: DataFile | None = None
    for unit in units:
        if current is not None and unit.file != current:
            yield from _made(current, groups)
            groups = {}
        current = unit.file
        key = key_of(unit.file.name, unit.row)
        if key is None:
            yield unit
        else:
            groups.setdefault(key, _Group(unit.position, unit.number)).rows.append(unit.row)
    if current is not None:
        yield from _made(current, groups)


def _made(file: DataFile, groups: dict[str, _Group]) -> Iterator[Unit]:
    for group in groups.values():
        yield Unit(file, group.position, group.number, {"rows": group.rows}, len(group.rows), grouped=True)

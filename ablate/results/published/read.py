"""Reading a published table: its YAML file, and the CSV beside it as exact decimals."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ablate.catalogs.closed import validated
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.errors import DataError, Location, SpecError, UnknownNameError, suggestion
from ablate.results.layout.names import PUBLISHED, published_names, refuse_unknown
from ablate.results.published.declared import PublishedTable, Selection
from ablate.shipped import find_by_name


@dataclass(frozen=True)
class PublishedRow:
    """One row of the CSV: its names, and its numbers as printed (None where the field is empty)."""

    labels: Mapping[str, str]
    numbers: Mapping[str, Decimal | None]

    def fits(self, selection: Selection) -> bool:
        """Return whether the row has the names of ``selection``."""
        return all(self.labels[column] == value for column, value in selection.items())


@dataclass(frozen=True)
class Published:
    """A published table and its rows in printed order."""

    name: str
    declared: PublishedTable
    rows: tuple[PublishedRow, ...]

    def digits(self, column: str) -> int:
        """Return the decimals that a column is printed with: the most of any of its numbers."""
        numbers = (row.numbers[column] for row in self.rows)
        return max((_decimals(number) for number in numbers if number is not None), default=0)

    def unit(self, column: str) -> Decimal:
        """Return the size of a column's last printed decimal; a printed number is off by half of it at most."""
        return Decimal(1).scaleb(-self.digits(column))

    def select(self, selection: Selection) -> list[PublishedRow]:
        """Return the rows that have the names of ``selection``."""
        return [row for row in self.rows if row.fits(selection)]


def read_published(name: str, start: Path | None = None) -> Published:
    """Read ``published/NAME.yaml`` and ``.csv`` from the project's folder of reports, else from the shipped one.

    Raises UnknownNameError for a name that is in neither, SpecError and DataError with file and line for bad files.
    """
    start = start or Path.cwd()
    path = find_by_name("reports", f"{PUBLISHED}/{name}.yaml", start)
    if path is None:
        raise UnknownNameError("published table", name, published_names(start))
    values, origins = read_yaml(path)
    declared = validated(PublishedTable, values, origins.locate)
    rows = tuple(_rows(path.with_suffix(".csv"), declared, origins))
    published = Published(name, declared, rows)
    _check_names(published, origins)
    return published


def _rows(path: Path, declared: PublishedTable, origins: Origins) -> Iterable[PublishedRow]:
    if not path.is_file():
        raise DataError(
            "the numbers of this table are not there", location=Location(str(path)), hint=f"add {path.name}"
        )
    names = {*declared.labels, *([declared.headings] if declared.headings else [])}
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        header = list(reader.fieldnames or ())
        for kind, wanted in (("labels", declared.labels), ("columns", declared.columns)):
            for column in wanted:
                refuse_unknown(f"column of {path.name}", column, header, origins.locate(kind, column))
        if declared.headings:
            refuse_unknown(f"column of {path.name}", declared.headings, header, origins.locate("headings"))
        undeclared = [column for column in header if column not in {*names, *declared.columns}]
        if undeclared:
            hint = suggestion(undeclared[0], [*names, *declared.columns])
            raise DataError(f"column {undeclared[0]!r} is not declared", location=Location(str(path), 1), hint=hint)
        for fields in reader:
            place = Location(str(path), reader.line_num)
            if None in fields or None in fields.values():
                raise DataError(f"a row has {len(header)} fields", location=place)
            numbers = {column: _number(fields[column], column, place) for column in declared.columns}
            yield PublishedRow({column: fields[column] for column in names}, numbers)


def _number(text: str, column: str, place: Location) -> Decimal | None:
    if not text.strip():
        return None
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise DataError(f"{text!r} is no number", location=Location(place.file, place.line, column))
    return number


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _check_names(published: Published, origins: Origins) -> None:
    declared = published.declared
    for column, about in declared.columns.items():
        for index, part in enumerate(about.mean_of):
            refuse_unknown("column", part, declared.columns, origins.locate("columns", column, "mean_of", index))
    for index, difference in enumerate(declared.differences):
        refuse_unknown("label", difference.column, declared.labels, origins.locate("differences", index, "column"))
        for part in ("value", "first", "second"):
            values = dict.fromkeys(row.labels[difference.column] for row in published.rows)
            name = f"value of {difference.column}"
            refuse_unknown(name, getattr(difference, part), values, origins.locate("differences", index, part))
    for index, selection in enumerate(declared.baselines):
        _check_selection(published, selection, origins.inside("baselines", index))
    if declared.colour is not None and declared.colour.against is not None:
        _check_selection(published, declared.colour.against, origins.inside("colour", "against"))
    for index, claim in enumerate(declared.claims):
        refuse_unknown("column", claim.column, declared.columns, origins.locate("claims", index, "column"))
        for part, chosen in (("of", claim.of), ("minus", claim.minus)):
            if chosen is None:
                continue
            _check_selection(published, chosen, origins.inside("claims", index, part))
            if all(row.numbers[claim.column] is None for row in published.select(chosen)):
                place = origins.locate("claims", index, part)
                raise SpecError(f"no row of the claim has a number in column {claim.column!r}", location=place)


def _check_selection(published: Published, selection: Selection, origins: Origins) -> None:
    """Raise :class:`SpecError` where no row has these names."""
    known = dict.fromkeys(name for row in published.rows for name in row.labels)
    for column, value in selection.items():
        refuse_unknown("label", column, known, origins.locate(column))
        values = dict.fromkeys(row.labels[column] for row in published.rows)
        refuse_unknown(f"value of {column}", value, values, origins.locate(column))
    if not published.select(selection):
        raise SpecError("no row has all of these names", location=origins.locate())

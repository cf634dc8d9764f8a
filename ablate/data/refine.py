"""A converter with what a set adds to it: another label, then filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.catalogs.pipelines import Where
from ablate.data.converters import BoundConverter, bind
from ablate.data.filters import RowFilter
from ablate.data.labels import AspectLabel
from ablate.data.records import Converted, Dropped, PreferenceRecord, Row


@dataclass(frozen=True)
class Reader:
    """``convert`` turns (relative file name, row) into what is used of the row, or says why nothing is.

    ``finish`` is called where nothing is left; it raises DataError for names that none had: of a label, of filters.
    """

    convert: BoundConverter
    finish: Callable[[], None]


def reader(config: Mapping[str, Any]) -> Reader:
    """Return the reader of a dataset stage's config; ``where`` sees the scores of the new ``label``.

    ``converter_code`` is the sha256 that the file of a converter of one's own must have; left out: any.
    """
    own = bind(config["converter"], config.get("converter_options") or {}, config.get("converter_code"))
    label, where = config.get("label"), config.get("where")
    relabel = AspectLabel(label) if label else None
    keep = RowFilter(Where.model_validate(dict(where), strict=False)) if where else None

    def convert(file: str, row: Row) -> Converted:
        converted = own(file, row)
        if relabel and isinstance(converted, PreferenceRecord):
            converted = relabel(converted)
        if keep is None or isinstance(converted, Dropped):
            return converted
        return keep(converted)

    def finish() -> None:
        for part in (relabel, keep):
            if part:
                part.require_found()

    return Reader(convert, finish)

"""What was fetched into a data root: a record beside the files of each repository."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from ablate.catalogs.closed import Strict
from ablate.context import write_json
from ablate.errors import DataError

RECORD = ".fetched.json"


class Fetched(Strict):
    """A file as it was fetched."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The commit it was fetched at."""
    sha256: str
    size: int
    """In bytes."""


_Record = TypeAdapter(dict[str, Fetched])


def read_record(folder: Path) -> dict[str, Fetched]:
    """Return what was fetched into the folder of a repository, by the names there; empty without a record."""
    path = folder / RECORD
    try:
        return _Record.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, ValidationError) as error:
        raise DataError(
            f"{path} is no record of fetched files ({type(error).__name__})",
            hint="remove it: the files stay, their revision is no longer known",
        ) from error


def note_fetched(folder: Path, name: str, file: Fetched) -> None:
    """Add a file to the record of its repository's folder."""
    record = {**read_record(folder), name: file}
    write_json(folder / RECORD, {key: value.model_dump() for key, value in sorted(record.items())})

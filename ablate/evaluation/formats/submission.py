"""What a format makes of a file of outputs: rows that name an example of a suite and what was said to it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablate.data.sources import DataFile, read_rows
from ablate.errors import DataError


@dataclass(frozen=True)
class Output:
    """One row of a file: which example it is about, and what was said, scored or decided of it.

    ``row`` counts from 1. ``source`` is the example's id as the file gives it and ``prompt`` its text; either may be
    absent. ``texts`` are the responses (samples); null where the file has none and only stored verdicts, scores or
    likelihoods. ``facts`` are all other columns: what a suite's grader reads of them is its own affair.
    """

    row: int
    source: str | None = None
    prompt: str | None = None
    texts: tuple[str, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submission:
    """All that a file of outputs holds; ``about`` is what it says of itself (model, judge), for the protocol."""

    path: Path
    outputs: tuple[Output, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that were read as facts, in their order."""
        return list(dict.fromkeys(name for output in self.outputs for name in output.facts))


@dataclass(frozen=True)
class ReadOptions:
    """What the user said of a file: columns for id and response (dotted where they are nested), and which model."""

    id: str | None = None
    response: str | None = None
    model: str | None = None


class Format(Protocol):
    """A module that reads one kind of file.

    ``recognises`` is asked with the first row (the whole object, where a JSON file is one; null where the path is a
    folder or has no rows); ``read`` raises ``DataError`` that names the row.
    """

    def recognises(self, path: Path, first: Mapping[str, Any] | None) -> bool:
        """Whether the file is of this kind."""

    def read(self, path: Path, options: ReadOptions) -> Submission:
        """What the file holds."""


def first_row(path: Path) -> Mapping[str, Any] | None:
    """The first row of a file, or the object that a JSON file is; raises ``DataError`` for an unreadable one."""
    if path.is_dir():
        return None
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint="name a file of outputs: .jsonl, .json, .csv or .parquet")
    if path.suffix == ".txt":
        return None
    whole = json_object(path)
    if whole is not None:
        return whole
    return next((row for _, row in read_rows(DataFile(path.name, path))), None)


def read_text(path: Path) -> str:
    """The text of a file; raises ``DataError`` where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error


def json_object(path: Path) -> dict[str, Any] | None:
    """The object that a ``.json`` file is as a whole, over several lines or one; null for anything else."""
    if not path.name.endswith((".json", ".json.gz")):
        return None
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            value = json.loads(stream.read())
    except (OSError, EOFError, ValueError):
        return None  # lines of JSON, or damaged: the reader of rows says which row
    return value if isinstance(value, dict) else None

"""Read rows from data files: JSON lines, JSON, CSV or Parquet, plain or compressed (.gz, .zst)."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ablate.catalogs.datasets import locate
from ablate.catalogs.digests import sha256_file
from ablate.data.records import Row
from ablate.errors import DataError

COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file and the relative name by which converters and reports know it."""

    name: str
    path: Path


def folder_files(folder: Path) -> list[DataFile]:
    """Return the data files of a folder in the order of their names; every file in it must be one."""
    files = [DataFile(path.name, path) for path in sorted(folder.iterdir()) if path.is_file()]
    if not files:
        raise DataError(f"no data files in {folder}")
    return files


def root_files(digests: Mapping[str, str], root: Path | None) -> list[DataFile]:
    """Return the files ``digests`` names (relative name to sha256) under the data root, checked against their digests.

    A missing file or other content is a :class:`DataError`.
    """
    files = []
    for name, expected in sorted(digests.items()):
        path = locate(name, root, "this stage")
        found = sha256_file(path)
        if found != expected:
            raise DataError(
                f"{path} is not the file this stage was planned with: sha256 {found[:12]}…, expected {expected[:12]}…",
                hint="restore the file, or plan again to use the new content (which is another dataset)",
            )
        files.append(DataFile(name, path))
    return files


def read_rows(file: DataFile) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a data file.

    A row that can't be read, and a file that ends early, are a :class:`DataError` naming file and row.
    """
    stem = Path(file.path.name)
    compression = stem.suffix if stem.suffix in COMPRESSIONS else ""
    kind = Path(stem.stem).suffix if compression else stem.suffix
    if kind not in _READERS or (kind == ".parquet" and compression):
        raise DataError(
            f"{file.path} is of no readable kind",
            hint="allowed: .jsonl, .json, .csv (each also with .gz or .zst), .parquet",
        )
    number = 0
    try:
        for number, row in enumerate(_READERS[kind](file.path, compression), start=1):
            yield number, row
    except _Unreadable as error:
        raise DataError(f"{file.path}, row {number + 1}: {error}", hint=_HINT) from error
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, csv.Error, OSError, ValueError) as error:
        raise DataError(
            f"{file.path}, after row {number}: the file is corrupt or cut off ({error})", hint=_HINT
        ) from error


_HINT = "nothing of this file was used; fetch it again"


class _Unreadable(Exception):
    """What is wrong with the row after the last one yielded."""


def _open_binary(path: Path, compression: str) -> IO[bytes]:
    if compression == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if compression == ".zst":
        import pyarrow  # heavy, and only this format needs it

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _jsonl(path: Path, compression: str) -> Iterator[Row]:
    with _open_binary(path, compression) as stream:
        for line in stream:
            if line.strip():
                yield _object(line)


def _json(path: Path, compression: str) -> Iterator[Row]:
    """A list of rows; or one row a line, as some sets of the hub name their JSON lines."""
    with _open_binary(path, compression) as stream:
        if not stream.read(64).lstrip().startswith(b"["):
            yield from _jsonl(path, compression)
            return
    with _open_binary(path, compression) as stream:
        for value in json.loads(stream.read()):
            yield _mapping(value)


def _csv(path: Path, compression: str) -> Iterator[Row]:
    with _open_binary(path, compression) as stream:
        reader = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise _Unreadable(f"its number of fields is not that of the header ({len(reader.fieldnames or ())})")
            yield row


def _parquet(path: Path, _: str) -> Iterator[Row]:
    import pyarrow.parquet  # heavy, and only this format needs it

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _object(line: bytes) -> Row:
    try:
        return _mapping(json.loads(line))
    except ValueError as error:
        raise _Unreadable(f"not valid JSON ({error})") from error


def _mapping(value: Any) -> Row:
    if not isinstance(value, dict):
        raise _Unreadable(f"a row is an object with named fields (found {type(value).__name__})")
    return value

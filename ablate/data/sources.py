"""Read rows from data files: JSON lines, JSON, CSV or Parquet, plain or compressed (.gz, .zst)."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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


class Meter:
    """How many bytes of the files, as they lie on the disk, have been read, of how many (``total``)."""

    def __init__(self, files: Iterable[DataFile]) -> None:
        self._sizes = {file.path: file.path.stat().st_size for file in files}
        self.total = sum(self._sizes.values())
        self._before = 0
        self._tell: Callable[[], int] = int

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self._before + self._tell()

    def follow(self, tell: Callable[[], int]) -> None:
        """Count what ``tell`` returns, the place in the file that is being read."""
        self._tell = tell

    def finish(self, file: DataFile) -> None:
        """Count a whole file as read."""
        self._before += self._sizes.get(file.path, 0)
        self._tell = int


def read_rows(file: DataFile, meter: Meter | None = None) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a data file; ``meter`` follows how far it is read.

    A row that can't be read, and a file that ends early, are a :class:`DataError` naming file and row.
    """
    meter = meter or Meter([])
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
        for number, row in enumerate(_READERS[kind](file.path, compression, meter), start=1):
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


@contextmanager
def _opened(path: Path, compression: str, meter: Meter) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        meter.follow(raw.tell)
        if compression == ".gz":
            with gzip.open(raw) as stream:
                yield stream  # type: ignore[misc]
        elif compression == ".zst":
            import pyarrow  # heavy, and only this format needs it

            with io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")) as stream:
                yield stream
        else:
            yield raw
        meter.follow(int)


def _jsonl(path: Path, compression: str, meter: Meter) -> Iterator[Row]:
    with _opened(path, compression, meter) as stream:
        for line in stream:
            if line.strip():
                yield _object(line)


def _json(path: Path, compression: str, meter: Meter) -> Iterator[Row]:
    """A list of rows; or one row a line, as some sets of the hub name their JSON lines."""
    with _opened(path, compression, meter) as stream:
        if not stream.read(64).lstrip().startswith(b"["):
            yield from _jsonl(path, compression, meter)
            return
    with _opened(path, compression, meter) as stream:
        for value in json.loads(stream.read()):
            yield _mapping(value)


def _csv(path: Path, compression: str, meter: Meter) -> Iterator[Row]:
    with _opened(path, compression, meter) as stream:
        reader = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise _Unreadable(f"its number of fields is not that of the header ({len(reader.fieldnames or ())})")
            yield row


def _parquet(path: Path, _: str, meter: Meter) -> Iterator[Row]:
    import pyarrow.parquet  # heavy, and only this format needs it

    size, read = path.stat().st_size, 0
    with pyarrow.parquet.ParquetFile(path) as file:
        rows = max(file.metadata.num_rows, 1)
        meter.follow(lambda: size * read // rows)
        for group in range(file.num_row_groups):  # asked for all at once, it reads ahead
            for batch in file.iter_batches(batch_size=1024, row_groups=[group], use_threads=False):
                yield from batch.to_pylist()
                read += batch.num_rows


_READERS: dict[str, Callable[[Path, str, Meter], Iterator[Row]]] = {
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

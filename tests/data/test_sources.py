"""Reading files of every kind, and the errors of damaged ones."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ablate.data.converters import bind
from ablate.data.records import PreferenceRecord, digest
from ablate.data.sources import DataFile, folder_files, read_rows, root_files
from ablate.errors import DataError

ROWS = [{"a": "one"}, {"a": "zwei, ü"}, {"a": "3\nlines\nof"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path: Path) -> list[Any]:
    return list(read_rows(DataFile(path.name, path)))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_all_kinds_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    zstd = pyarrow.compress(JSONL, codec="zstd", asbytes=True)
    csv = 'a\none\n"zwei, ü"\n"3\nlines\nof"\n'.encode()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    paths = [
        write(tmp_path / "a.jsonl", JSONL.replace(b"\n", b"\n\n", 1)),  # a blank line is no row
        write(tmp_path / "b.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        write(tmp_path / "c.jsonl.zst", zstd),
        write(tmp_path / "d.json", json.dumps(ROWS).encode()),
        write(tmp_path / "d.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        write(tmp_path / "d.lines.json", JSONL),  # the hub has JSON lines under this name too
        write(tmp_path / "f.csv", csv),
        write(tmp_path / "f.csv.gz", gzip.compress(csv, mtime=0)),
        tmp_path / "e.parquet",
    ]
    for path in paths:
        assert read(path) == list(enumerate(ROWS, start=1)), path
    assert [file.name for file in folder_files(tmp_path)] == sorted(path.name for path in paths)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", JSONL[:-9], "row 3: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"row 2: a row is an object with named fields \(found list\)"),
        ("a.jsonl.gz", gzip.compress(JSONL * 50, mtime=0)[:-20], r"after row \d+: the file is corrupt or cut off"),
        ("a.jsonl.gz", JSONL, "after row 0: the file is corrupt"),
        ("a.jsonl", b'{"a": "\xff"}\n', "row 1: not valid JSON"),
        ("a.json", b'[{"a": 1}', "after row 0: the file is corrupt"),
        ("a.json", b'{"a": 1}\n7\n', r"row 2: a row is an object with named fields \(found int\)"),
        ("a.json", b'[{"a": 1}, 7]', r"row 2: a row is an object with named fields \(found int\)"),
        ("a.csv", b"a,b\n1,2\n3\n", "row 2: its number of fields is not that of the header"),
        ("a.csv", b'a,b\n1,"2\n', "after row 0: the file is corrupt"),
        ("a.parquet", b"PAR1 not", "after row 0: the file is corrupt"),
        ("a.jsonl.zst", b"not zstd at all", "after row 0: the file is corrupt"),
        ("a.txt", b"x", "of no readable kind"),
    ],
)
def test_damaged_files_name_file_and_row(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value)


def test_a_flipped_byte_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(JSONL * 50, mtime=0))
    content[-6] ^= 1  # in the checksum
    with pytest.raises(DataError, match="corrupt or cut off"):
        read(write(tmp_path / "a.jsonl.gz", bytes(content)))


def test_files_of_the_root_are_checked_against_their_digests(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", JSONL)
    digest = hashlib.sha256(JSONL).hexdigest()
    assert root_files({"a.jsonl": digest}, tmp_path) == [DataFile("a.jsonl", tmp_path / "a.jsonl")]
    with pytest.raises(DataError, match="is not the file this stage was planned with"):
        root_files({"a.jsonl": "0" * 64}, tmp_path)
    with pytest.raises(DataError, match=r"(?s)b\.jsonl.*ABLATE_DATA"):
        root_files({"b.jsonl": digest}, tmp_path)


def test_rows_of_a_parquet_file_with_times_and_bytes_have_an_id(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    cells: dict[str, Any] = {"when": datetime(2024, 5, 1, 12), "price": Decimal("1.50"), "raw": b"\xff"}
    row = {"prompt": "a", "chosen": "b", "rejected": "c", **cells}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    ((_, read),) = read_rows(DataFile("a.parquet", tmp_path / "a.parquet"))
    made = bind("columns", {})("a.parquet", read)
    assert isinstance(made, PreferenceRecord)
    assert made.row_id == digest({**row, "when": "2024-05-01 12:00:00", "price": "1.50", "raw": "ff"})

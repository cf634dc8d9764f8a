"""JSON lines as one stage leaves them for another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablate.data.sources import DataFile, read_rows
from ablate.errors import StageError


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file that another stage wrote."""
    if not path.is_file():
        raise StageError(f"{path} is missing: the stage that should have written it is of another kind")
    return [dict(row) for _, row in read_rows(DataFile(path.name, path))]


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    with path.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)

"""Answers kept batch by batch, so that an attempt goes on where the one before it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """The answers to one list of requests: row to a JSON value, over this attempt's file and those of earlier ones."""

    file: Path
    earlier: tuple[Path, ...] = ()

    @cached_property
    def known(self) -> dict[int, Any]:
        """Answers of earlier attempts, and those kept since."""
        rows: dict[int, Any] = {}
        for path in self.earlier:
            if path.is_file():
                rows |= _read(path)
        return rows

    def keep(self, rows: Mapping[int, Any]) -> None:
        """Append answers; a line that an interruption tears is not read again."""
        self.known.update(rows)
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(list(rows.items()), ensure_ascii=False, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Journal:
    """The parts of a stage, in its attempt's folder ``work``; ``earlier`` are those folders of attempts before it."""

    work: Path
    earlier: tuple[Path, ...] = ()

    def part(self, name: str) -> Part:
        """Return the part called ``name``."""
        file = f"answers-{name}.jsonl"
        return Part(self.work / file, tuple(folder / file for folder in self.earlier))


def _read(path: Path) -> dict[int, Any]:
    rows: dict[int, Any] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows |= {int(row): value for row, value in json.loads(line)}
        except ValueError:  # torn by the end of its attempt
            continue
    return rows

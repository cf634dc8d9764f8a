"""The records of a set as its converter makes them, in its part of the split, with every row accounted for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry
from ablate.data.account import RowAccount
from ablate.data.converters import grouping
from ablate.data.entry_rows import entry_rows
from ablate.data.examples import Kept, prompt_of, unusable
from ablate.data.grouping import Unit, at_unit, together_by_file
from ablate.data.pairing import Pair, pairs
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, draw
from ablate.data.refine import reader
from ablate.errors import DataError, UsageError
from ablate.models.chat import Messages

PROGRESS_EVERY = 1000  # rows


@dataclass(frozen=True, slots=True)
class Audited:
    """A record of any format.

    ``responses`` are all that the record has (one of a conversation, none of a prompt), ``pairs`` those that the
    entry's pairing draws from them. ``row`` is the place of its first row among all rows, from 1.
    """

    row: int
    source: str
    prompt: Messages
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...]
    language: str | None

    def sides(self) -> Iterator[tuple[str, str]]:
        """Yield (side, text) of every response that is trained on: chosen and rejected of each pair, or response."""
        if not self.pairs:
            yield from (("response", text_of(response)) for response in self.responses)
        for pair in self.pairs:
            yield "chosen", text_of(pair.chosen)
            yield "rejected", text_of(pair.rejected)


@dataclass
class Account(RowAccount):
    """What became of every row: ``rows == kept + sum(dropped)``."""

    kept: int = 0
    records: int = 0
    pairs: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the account; one that does not balance is an error of this program."""
        assert self.rows == self.kept + self.dropped.total(), (self.rows, self.kept, dict(self.dropped))
        return {
            "rows": self.rows,
            "files": dict(self.files),
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "responses": self.responses_json(),
            "records": self.records,
            "pairs": self.pairs,
        }


def text_of(response: Response) -> str:
    """Return a response as one text."""
    return "\n\n".join(turn["content"] for turn in response.messages)


def read(
    entry: DatasetEntry, root: Path | None, account: Account, progress: Callable[[int], None]
) -> Iterator[Audited]:
    """Yield the records of a set and count its rows; ``progress`` is called with the rows read so far.

    A set of documents is a ``UsageError``, a missing file a ``DataError`` that says what to put where, and so is a
    set of which nothing is left.
    """
    if entry.converter is None:
        raise UsageError(f"dataset {entry.name!r} has documents, not prompts and responses: there is nothing to audit")
    reads = reader(entry.stage_config())
    key_of = grouping(entry.converter, entry.converter_options)
    for unit in together_by_file(_counted(entry_rows(entry, root), account, progress), key_of):
        try:
            converted = reads.convert(unit.file.name, unit.row)
            yield from _records(entry, unit, converted, account)
        except DataError as error:
            raise at_unit(unit, error) from error
    if not account.records:
        raise DataError(f"dataset {entry.name!r}: {account.nothing_left()}")


def sample(items: Iterable[Audited], count: int | None, seed: int) -> Iterable[Audited]:
    """Return ``count`` records drawn by seed and content, in their old order; None returns all as they come."""
    if count is None:
        return items

    def key(item: Audited) -> int:
        return draw(seed, "audit", item.prompt, [response.messages for response in item.responses])

    return sorted(heapq.nsmallest(count, items, key=key), key=lambda item: item.row)


def _counted(units: Iterable[Unit], account: Account, progress: Callable[[int], None]) -> Iterator[Unit]:
    for unit in units:
        account.files[unit.file.name] += 1
        if unit.position % PROGRESS_EVERY == 0:
            progress(unit.position)
        yield unit
    progress(account.rows)


def _records(entry: DatasetEntry, unit: Unit, converted: Converted, account: Account) -> list[Audited]:
    """Return the records of one row or group, or none, counted under the reason."""
    rows = account.take(unit, converted)
    found = converted if isinstance(converted, Dropped) else _audited(entry, unit, converted)
    if isinstance(found, Dropped):
        account.dropped[found.reason] += rows
        return []
    account.kept += rows
    account.records += len(found)
    account.pairs += sum(len(item.pairs) for item in found)
    return found


def _audited(entry: DatasetEntry, unit: Unit, converted: Kept) -> list[Audited] | Dropped:
    if reason := unusable(converted, entry.split):
        return Dropped(reason)
    row = unit.position + 1
    if isinstance(converted, PreferenceRecord) and entry.format == "preference":
        made = pairs(converted, entry.pairing)
        if isinstance(made, Dropped):
            return made
        return [Audited(row, converted.source, converted.prompt, converted.responses, made, converted.language)]
    if isinstance(converted, tuple) and entry.format == "instruction":
        return [
            Audited(row, item.source, item.messages[:-1], (Response(item.messages[-1:]),), (), item.language)
            for item in converted
        ]
    first = converted[0] if isinstance(converted, tuple) else converted
    return [Audited(row, first.source, prompt_of(converted), (), (), first.language)]
